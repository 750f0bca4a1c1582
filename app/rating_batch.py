"""Storing many ratings with few statements, which is far cheaper than one by one."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from app.errors import MoviesNotFound
from app.models import SCORE_MAX, SCORE_MIN, USER_ID_MAX
from app.read_models import NewRating
from app.statements import ADJUST_AGGREGATES, BY_USER, ITS_RATING_BY_USER, require_id_in_range
from app.tables import MOVIE, RATING

# The pairs are one parameter to join with: with a list after IN, SQLite would scan the whole table.
_pairs = sa.func.json_each(sa.bindparam("pairs")).table_valued("value")
_given = (
    sa.func.unnest(
        sa.bindparam("of_movies", type_=sa.ARRAY(sa.Integer)),
        sa.bindparam("by_users", type_=sa.ARRAY(sa.BigInteger)),
    )
    .table_valued("movie_id", "user_id")
    .render_derived()
)
# In id order: otherwise two batches could deadlock.
_LOCK_MOVIES = (
    sa.select(MOVIE.c.id)
    .where(MOVIE.c.id.in_(sa.bindparam("movie_ids", expanding=True)))
    .order_by(MOVIE.c.id)
    .with_for_update(key_share=True)
)
_LOCK_MOVIES_OF_USER = (
    sa.select(MOVIE.c.id)
    .where(MOVIE.c.id.in_(sa.select(RATING.c.movie_id).where(BY_USER)))
    .order_by(MOVIE.c.id)
    .with_for_update(key_share=True)
)
_DELETE_RATINGS = (
    sa.delete(RATING)
    .where(BY_USER, RATING.c.movie_id.in_(sa.bindparam("movie_ids", expanding=True)))
    .returning(RATING.c.movie_id, RATING.c.score)
)
_user_rating = RATING.c["movie_id", "user_id", "score", "created_at"]
_STORED_RATINGS: dict[str, sa.Select[Any]] = {
    "sqlite": sa.select(*_user_rating).join_from(
        _pairs,
        RATING,
        sa.and_(
            RATING.c.movie_id == sa.func.json_extract(_pairs.c.value, "$[0]"),
            RATING.c.user_id == sa.func.json_extract(_pairs.c.value, "$[1]"),
        ),
    ),
    "postgresql": sa.select(*_user_rating).join_from(
        _given,
        RATING,
        sa.and_(RATING.c.movie_id == _given.c.movie_id, RATING.c.user_id == _given.c.user_id),
    ),
}
# SQLite takes 32,766 parameters, PostgreSQL 65,535.
_MOVIES_PER_STATEMENT = 1000
_INSERT_RATINGS = sa.insert(RATING)
_REPLACE_RATINGS = (
    sa.update(RATING)
    .where(*ITS_RATING_BY_USER)
    .values(score=sa.bindparam("new_score"), created_at=sa.bindparam("new_created_at"))
)
_LARGEST_RATING_ID = sa.select(sa.func.max(RATING.c.id))


def require_bounds(field: str, value: object, smallest: int, largest: int) -> None:
    """Raise a ValueError unless a value is an integer from ``smallest`` to ``largest``."""
    if not isinstance(value, int) or not smallest <= value <= largest:
        raise ValueError(f"{field} must be an integer from {smallest} to {largest}")


def store_ratings(connection: sa.Connection, ratings: Sequence[NewRating]) -> None:
    """Store ratings in order. If a user rated a movie several times, the latest rating wins.

    Without ``created_at``, a rating counts as given now. Of equal times, the last rating wins.

    Raises:
        MoviesNotFound: some of the movies do not exist.
        IdsExhausted: no id is left.
        ValueError: a score or user id is out of its bounds.
    """
    for rating in ratings:
        require_bounds("score", rating.score, SCORE_MIN, SCORE_MAX)
        if rating.user_id is not None:
            require_bounds("user_id", rating.user_id, 1, USER_ID_MAX)
    _lock_movies(connection, ratings)
    now = datetime.now(UTC)
    # A repeated rating keeps the position of the first and has the score of the latest.
    final: dict[tuple[int, int | None, int], NewRating] = {}
    for position, rating in enumerate(ratings):
        key = rating.movie_id, rating.user_id, 0 if rating.user_id else position
        other = final.setdefault(key, rating)
        if (rating.created_at or now) >= (other.created_at or now):
            final[key] = rating
    _store(connection, [*final.values()], now)


def delete_ratings(connection: sa.Connection, user_id: int) -> int:
    """Delete all ratings of a user, and return their number."""
    user = {"by_user": user_id}
    removed = 0
    movie_ids = connection.execute(_LOCK_MOVIES_OF_USER, user).scalars().all()
    for start in range(0, len(movie_ids), _MOVIES_PER_STATEMENT):
        part = movie_ids[start : start + _MOVIES_PER_STATEMENT]
        deleted = connection.execute(_DELETE_RATINGS, user | {"movie_ids": part})
        changes = [
            {"this_movie": movie_id, "count_change": -1, "sum_change": -score}
            for movie_id, score in deleted
        ]
        removed += len(changes)
        if changes:  # another transaction may have deleted them before the lock was taken
            connection.execute(ADJUST_AGGREGATES, changes)
    return removed


def _lock_movies(connection: sa.Connection, ratings: Sequence[NewRating]) -> None:
    ids = {rating.movie_id for rating in ratings}
    known = set(connection.execute(_LOCK_MOVIES, {"movie_ids": [*ids]}).scalars())
    if len(known) < len(ids):
        raise MoviesNotFound([n for n, r in enumerate(ratings) if r.movie_id not in known])


def _store(connection: sa.Connection, ratings: Sequence[NewRating], now: datetime) -> None:
    """Store ratings, at most one per user and movie."""
    stored = _stored_ratings(connection, [(r.movie_id, r.user_id) for r in ratings if r.user_id])
    new, replaced = [], []
    changes: dict[int, dict[str, int]] = {}
    for movie_id, score, user_id, _, created_at in ratings:
        old, stored_at = stored.get((movie_id, user_id), (None, None))
        if created_at and stored_at and created_at < stored_at:
            continue
        time = created_at or now
        if old is None:
            rating = {"movie_id": movie_id, "user_id": user_id, "score": score, "created_at": time}
            new.append(rating)
        else:
            key = {"this_movie": movie_id, "by_user": user_id}
            replaced.append(key | {"new_score": score, "new_created_at": time})
        change = changes.setdefault(
            movie_id, {"this_movie": movie_id, "count_change": 0, "sum_change": 0}
        )
        change["count_change"] += old is None
        change["sum_change"] += score - (old or 0)
    for statement, rows in (
        (_INSERT_RATINGS, new),
        (_REPLACE_RATINGS, replaced),
        (ADJUST_AGGREGATES, [*changes.values()]),
    ):
        if rows:
            connection.execute(statement, rows)
    if new and connection.dialect.name == "sqlite":
        require_id_in_range(connection.execute(_LARGEST_RATING_ID).scalar_one())


def _stored_ratings(
    connection: sa.Connection, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int | None], tuple[int, datetime]]:
    """Return the score and the time of each stored rating, given movies and users."""
    if not keys:
        return {}
    dialect = connection.dialect.name
    parameters: dict[str, object] = {"pairs": json.dumps(keys)}
    if dialect == "postgresql":
        movies, users = zip(*keys, strict=True)
        parameters = {"of_movies": [*movies], "by_users": [*users]}
    rows = connection.execute(_STORED_RATINGS[dialect], parameters)
    return {(movie_id, user_id): (score, time) for movie_id, user_id, score, time in rows}

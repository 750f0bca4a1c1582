"""Storing many ratings with few statements, which is far cheaper than one by one."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from app.errors import MoviesNotFound
from app.models import SCORE_MAX, SCORE_MIN, USER_ID_MAX
from app.read_models import NewRating
from app.statements import ADJUST_AGGREGATES, ITS_RATING_BY_USER, require_id_in_range
from app.tables import MOVIE, RATING
from app.text import require_bounds

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
_user_rating = RATING.c["movie_id", "user_id", "score"]
_SCORES: dict[str, sa.Select[Any]] = {
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
_INSERT_RATINGS = sa.insert(RATING)
_REPLACE_RATINGS = (
    sa.update(RATING)
    .where(*ITS_RATING_BY_USER)
    .values(score=sa.bindparam("new_score"), created_at=sa.bindparam("new_created_at"))
)
_LARGEST_RATING_ID = sa.select(sa.func.max(RATING.c.id))


def store_ratings(connection: sa.Connection, ratings: Sequence[NewRating]) -> None:
    """Store ratings in order. If a user rated a movie several times, the last rating wins.

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
    # A repeated rating keeps the position of the first and has the score of the last.
    final: dict[tuple[int, int | None, int], NewRating] = {}
    for position, rating in enumerate(ratings):
        anonymous = 0 if rating.user_id else position
        final[rating.movie_id, rating.user_id, anonymous] = rating
    _store(connection, [*final.values()])


def _lock_movies(connection: sa.Connection, ratings: Sequence[NewRating]) -> None:
    ids = {rating.movie_id for rating in ratings}
    known = set(connection.execute(_LOCK_MOVIES, {"movie_ids": [*ids]}).scalars())
    if len(known) < len(ids):
        raise MoviesNotFound([n for n, r in enumerate(ratings) if r.movie_id not in known])


def _store(connection: sa.Connection, ratings: Sequence[NewRating]) -> None:
    """Store ratings, at most one per user and movie."""
    now = datetime.now(UTC)
    scores = _stored_scores(connection, [(r.movie_id, r.user_id) for r in ratings if r.user_id])
    new, replaced = [], []
    changes: dict[int, dict[str, int]] = {}
    for movie_id, score, user_id, _ in ratings:
        old = scores.get((movie_id, user_id))
        if old is None:
            rating = {"movie_id": movie_id, "user_id": user_id, "score": score, "created_at": now}
            new.append(rating)
        else:
            key = {"this_movie": movie_id, "by_user": user_id}
            replaced.append(key | {"new_score": score, "new_created_at": now})
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


def _stored_scores(
    connection: sa.Connection, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int | None], int]:
    if not keys:
        return {}
    dialect = connection.dialect.name
    parameters: dict[str, object] = {"pairs": json.dumps(keys)}
    if dialect == "postgresql":
        movies, users = zip(*keys, strict=True)
        parameters = {"of_movies": [*movies], "by_users": [*users]}
    rows = connection.execute(_SCORES[dialect], parameters)
    return {(movie_id, user_id): score for movie_id, user_id, score in rows}

"""The statements of CatalogueRepository, which imports and exports whole catalogues."""

from collections.abc import Iterable
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.filters import conditions
from app.movielens.files import MovieRow, RatingRow
from app.statements import rating_aggregates
from app.tables import MOVIE, RATING

# Writers of ratings wait for this lock, because they lock the movie's row first.
LOCK_CATALOGUE_ON_POSTGRESQL = sa.text("LOCK TABLE movie IN SHARE ROW EXCLUSIVE MODE")
# 16 MiB, eight times SQLite's default, which is too small for the indexes of a million ratings.
# The setting lasts as long as the connection.
ENLARGE_CACHE = sa.text("PRAGMA cache_size=-16384")
_genres = (MOVIE.c.genre + MOVIE.c.other_genres).label("genres")
_MOVIE_ROW = [
    _genres if field.name == "genres" else MOVIE.c[field.name] for field in fields(MovieRow)
]
_RATING_ROW = RATING.c[tuple(field.name for field in fields(RatingRow))]
EVERY_MOVIE = sa.select(*_MOVIE_ROW).order_by(MOVIE.c.id)
_every_rating = sa.select(*_RATING_ROW).order_by(RATING.c.id)
EVERY_RATING = _every_rating.where(RATING.c.user_id.is_not(None))
EVERY_ANONYMOUS_RATING = _every_rating.where(RATING.c.user_id.is_(None))


# Bounded: there is one statement for each number of words in a search.
@lru_cache(maxsize=1000)
def page_of_movie_rows(*filters: str) -> sa.Select[Any]:
    """Select id and row of matching movies by id, after ``last_id``."""
    return _page(MOVIE, _MOVIE_ROW).where(*conditions(filters))


@cache
def page_of_rating_rows(*filters: str) -> sa.Select[Any]:
    """Select id and row of matching ratings of users by id, after ``last_id``."""
    page = _page(RATING, _RATING_ROW)
    return page.where(RATING.c.user_id.is_not(None), *conditions(filters))


def _page(table: sa.Table, row: Iterable[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    page = sa.select(table.c.id.label("row_id"), *row).where(table.c.id > sa.bindparam("last_id"))
    return page.order_by(table.c.id).limit(sa.bindparam("row_limit"))


MOVIES_BY_TITLE = sa.select(*_MOVIE_ROW).where(
    MOVIE.c.title.in_(sa.bindparam("titles", expanding=True))
)
INSERT_MOVIES = sa.insert(MOVIE).returning(*MOVIE.c["id", "title", "imdb_id", "tmdb_id"])
DESCRIBE_MOVIE = (
    sa.update(MOVIE)
    .where(MOVIE.c.id == sa.bindparam("this_movie"))
    .values(
        year=sa.bindparam("new_year"),
        genre=sa.bindparam("new_genre"),
        other_genres=sa.bindparam("new_other_genres"),
    )
)
_EXTERNAL_IDS = ("imdb_id", "tmdb_id")
TAKEN_IDS = {
    name: sa.select(MOVIE.c[name]).where(
        MOVIE.c[name].in_(sa.bindparam("external_ids", expanding=True))
    )
    for name in _EXTERNAL_IDS
}
SET_EXTERNAL_ID = {
    name: sa.update(MOVIE)
    .where(MOVIE.c.id == sa.bindparam("this_movie"))
    .values({name: sa.bindparam("external_id")})
    for name in _EXTERNAL_IDS
}
LAST_RATING_ID = sa.select(sa.func.coalesce(sa.func.max(RATING.c.id), 0))
COUNT_LATER_RATINGS = sa.select(sa.func.count()).where(RATING.c.id > sa.bindparam("last_id"))


InsertT = TypeVar("InsertT", sqlite.Insert, postgresql.Insert)

_given = sa.select(
    sa.values(*(sa.Column(own.name, own.type) for own in _RATING_ROW))
    .data([tuple(sa.bindparam(f"given_{own.name}", type_=own.type) for own in _RATING_ROW)])
    .cte("given", nesting=True)
    # Nested in a SELECT: sqlite3 reports a row count only for SQL that begins with INSERT.
).subquery()
_stored = RATING.alias("stored")
# Check this first: a conflict consumes an id even if it changes nothing.
_is_outdated = sa.exists().where(
    _stored.c.movie_id == _given.c.movie_id,
    _stored.c.user_id == _given.c.user_id,
    _stored.c.created_at >= _given.c.created_at,
)


def _merge_given(insert_rating: InsertT) -> InsertT:
    """Return an upsert that replaces a stored rating only if the given one is later."""
    statement = insert_rating.from_select(
        _RATING_ROW.keys(), sa.select(_given).where(~_is_outdated)
    )
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["movie_id", "user_id"],
        set_={"score": new.score, "created_at": new.created_at},
        where=new.created_at > RATING.c.created_at,
    )


MERGE_RATING = _merge_given(postgresql.insert(RATING))


@cache
def merge_ratings_on_sqlite(count: int) -> str:
    """Return the multi-row upsert for SQLite.

    Its parameters are the fields of each RatingRow, row by row, as SQLite stores them. The
    statement is plain text: processing the parameters in SQLAlchemy would take as long as storing
    the rows.
    """
    sql = str(_merge_given(sqlite.insert(RATING)).compile(dialect=sqlite.dialect()))
    marks = "(?, ?, ?, ?)"
    return sql.replace(marks, ", ".join([marks] * count))


# Whole seconds, as in exports. Both engines print them as 2026-01-31 12:00:00.
_second = sa.func.substr(sa.cast(RATING.c.created_at, sa.String), 1, len("2026-01-31 12:00:00"))
_anonymous_key = (RATING.c.movie_id, RATING.c.score, _second)
_is_earlier = RATING.c.id <= sa.bindparam("last_id")
_later = RATING.alias()
_anonymous = (
    sa.select(
        RATING.c.id,
        sa.func.row_number().over(partition_by=_anonymous_key, order_by=RATING.c.id).label("place"),
        sa.func.count(sa.case((_is_earlier, 1))).over(partition_by=_anonymous_key).label("earlier"),
    )
    .where(
        RATING.c.user_id.is_(None),
        # Evaluated once. Most imports have no anonymous ratings, so they skip the scan.
        sa.exists().where(_later.c.user_id.is_(None), _later.c.id > sa.bindparam("last_id")),
    )
    .subquery()
)
# Delete as many new anonymous ratings as there were interchangeable ones before the import.
DELETE_REPEATED_RATINGS = sa.delete(RATING).where(
    RATING.c.id.in_(
        sa.select(_anonymous.c.id).where(
            _anonymous.c.id > sa.bindparam("last_id"),
            _anonymous.c.place <= 2 * _anonymous.c.earlier,
        )
    )
)

_recounted = (
    sa.select(
        RATING.c.movie_id,
        sa.func.count().label("count"),
        sa.func.sum(RATING.c.score).label("total"),
    )
    .where(RATING.c.movie_id.in_(sa.bindparam("movie_ids", expanding=True)))
    .group_by(RATING.c.movie_id)
    .subquery()
)
RECOUNT_AGGREGATES = (
    sa.update(MOVIE)
    .where(
        MOVIE.c.id == _recounted.c.movie_id,
        # Skip unchanged rows: rewriting them would still update their indexes.
        sa.or_(
            MOVIE.c.rating_count != _recounted.c.count, MOVIE.c.rating_sum != _recounted.c.total
        ),
    )
    .values(rating_aggregates(_recounted.c.count, sa.cast(_recounted.c.total, sa.Integer)))
)

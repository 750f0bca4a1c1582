"""The statements of CatalogueRepository, which imports and exports whole catalogues."""

from collections.abc import Iterable
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Select,
    String,
    Table,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
    values,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.movielens.files import MovieRow, RatingRow
from app.statements import MOVIE, RATING, conditions, rating_aggregates

# A rating locks its movie's row first, and so waits for this lock.
LOCK_CATALOGUE_ON_POSTGRESQL = text("LOCK TABLE movie IN SHARE ROW EXCLUSIVE MODE")
# In KiB: eight times SQLite's default, which the indexes of a million ratings outgrow. The
# connection keeps it.
ENLARGE_CACHE = text("PRAGMA cache_size=-16384")
_genres = (MOVIE.c.genre + MOVIE.c.other_genres).label("genres")
_MOVIE_ROW = [
    _genres if field.name == "genres" else MOVIE.c[field.name] for field in fields(MovieRow)
]
_RATING_ROW = RATING.c[tuple(field.name for field in fields(RatingRow))]
EVERY_MOVIE = select(*_MOVIE_ROW).order_by(MOVIE.c.id)
_every_rating = select(*_RATING_ROW).order_by(RATING.c.id)
EVERY_RATING = _every_rating.where(RATING.c.user_id.is_not(None))
EVERY_ANONYMOUS_RATING = _every_rating.where(RATING.c.user_id.is_(None))


# Bounded, for there is one for each number of words in a search.
@lru_cache(maxsize=1000)
def page_of_movie_rows(*filters: str) -> Select[Any]:
    """Select id and row of the movies that match the filters, by id after the last one."""
    return _page(MOVIE, _MOVIE_ROW).where(*conditions(filters))


@cache
def page_of_rating_rows(*filters: str) -> Select[Any]:
    """Select id and row of the users' ratings that match, by id after the last one."""
    page = _page(RATING, _RATING_ROW)
    return page.where(RATING.c.user_id.is_not(None), *conditions(filters))


def _page(table: Table, row: Iterable[ColumnElement[Any]]) -> Select[Any]:
    page = select(table.c.id.label("row_id"), *row).where(table.c.id > bindparam("last_id"))
    return page.order_by(table.c.id).limit(bindparam("row_limit"))


MOVIES_BY_TITLE = select(*_MOVIE_ROW).where(MOVIE.c.title.in_(bindparam("titles", expanding=True)))
INSERT_MOVIES = insert(MOVIE).returning(*MOVIE.c["id", "title", "imdb_id", "tmdb_id"])
DESCRIBE_MOVIE = (
    update(MOVIE)
    .where(MOVIE.c.id == bindparam("this_movie"))
    .values(
        year=bindparam("new_year"),
        genre=bindparam("new_genre"),
        other_genres=bindparam("new_other_genres"),
    )
)
_EXTERNAL_IDS = ("imdb_id", "tmdb_id")
TAKEN_IDS = {
    name: select(MOVIE.c[name]).where(MOVIE.c[name].in_(bindparam("external_ids", expanding=True)))
    for name in _EXTERNAL_IDS
}
SET_EXTERNAL_ID = {
    name: update(MOVIE)
    .where(MOVIE.c.id == bindparam("this_movie"))
    .values({name: bindparam("external_id")})
    for name in _EXTERNAL_IDS
}
LAST_RATING_ID = select(func.coalesce(func.max(RATING.c.id), 0))
COUNT_LATER_RATINGS = select(func.count()).where(RATING.c.id > bindparam("last_id"))


InsertT = TypeVar("InsertT", sqlite.Insert, postgresql.Insert)

_given = select(
    values(*(Column(own.name, own.type) for own in _RATING_ROW))
    .data([tuple(bindparam(f"given_{own.name}", type_=own.type) for own in _RATING_ROW)])
    .cte("given", nesting=True)
    # Nested in a SELECT: Python's driver reports a row count only for SQL that begins with INSERT.
).subquery()
_standing = RATING.alias("standing")
# Checked first: even a conflict that changes nothing consumes an id.
_something_stands = exists().where(
    _standing.c.movie_id == _given.c.movie_id,
    _standing.c.user_id == _given.c.user_id,
    _standing.c.created_at >= _given.c.created_at,
)


def _merge_given(insert_rating: InsertT) -> InsertT:
    """Return the upsert of a rating, which leaves a rating that is at least as recent."""
    statement = insert_rating.from_select(
        _RATING_ROW.keys(), select(_given).where(~_something_stands)
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

    Its parameters are the fields of each RatingRow in turn, as SQLite stores them. It is plain
    text: SQLAlchemy's processing of the parameters would take as long as storing them.
    """
    sql = str(_merge_given(sqlite.insert(RATING)).compile(dialect=sqlite.dialect()))
    marks = "(?, ?, ?, ?)"
    return sql.replace(marks, ", ".join([marks] * count))


# Exports write whole seconds. Both engines print them as 2026-01-31 12:00:00.
_second = func.substr(cast(RATING.c.created_at, String), 1, len("2026-01-31 12:00:00"))
_likeness = (RATING.c.movie_id, RATING.c.score, _second)
_is_earlier = RATING.c.id <= bindparam("last_id")
_later = RATING.alias()
_anonymous = (
    select(
        RATING.c.id,
        func.row_number().over(partition_by=_likeness, order_by=RATING.c.id).label("place"),
        func.count(case((_is_earlier, 1))).over(partition_by=_likeness).label("earlier"),
    )
    .where(
        RATING.c.user_id.is_(None),
        # Evaluated once: most imports have no anonymous ratings and skip the scan.
        exists().where(_later.c.user_id.is_(None), _later.c.id > bindparam("last_id")),
    )
    .subquery()
)
# Of interchangeable anonymous ratings, deletes as many new ones as were stored before.
DELETE_REPEATED_RATINGS = delete(RATING).where(
    RATING.c.id.in_(
        select(_anonymous.c.id).where(
            _anonymous.c.id > bindparam("last_id"),
            _anonymous.c.place <= 2 * _anonymous.c.earlier,
        )
    )
)

_recounted = (
    select(RATING.c.movie_id, func.count().label("count"), func.sum(RATING.c.score).label("total"))
    .where(RATING.c.movie_id.in_(bindparam("movie_ids", expanding=True)))
    .group_by(RATING.c.movie_id)
    .subquery()
)
RECOUNT_AGGREGATES = (
    update(MOVIE)
    .where(
        MOVIE.c.id == _recounted.c.movie_id,
        # Rewriting an unchanged row would still update its indexes.
        or_(
            MOVIE.c.rating_count != _recounted.c.count,
            MOVIE.c.rating_sum != _recounted.c.total,
        ),
    )
    .values(rating_aggregates(_recounted.c.count, cast(_recounted.c.total, Integer)))
)

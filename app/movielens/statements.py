"""The statements of CatalogueRepository: whole catalogues in and out."""

from dataclasses import fields
from functools import cache
from typing import TypeVar

from sqlalchemy import (
    Column,
    Integer,
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
from app.statements import MOVIE, RATING, rating_aggregates

# Whoever rates a movie locks its row first, and so waits here.
LOCK_CATALOGUE_ON_POSTGRESQL = text("LOCK TABLE movie IN SHARE ROW EXCLUSIVE MODE")
# In KiB. Eight times SQLite's own, which a million ratings' indexes outgrow; it stays with the
# connection.
ENLARGE_CACHE = text("PRAGMA cache_size=-16384")
_MOVIE_ROW = MOVIE.c[tuple(field.name for field in fields(MovieRow))]
_RATING_ROW = RATING.c[tuple(field.name for field in fields(RatingRow))]
EVERY_MOVIE = select(*_MOVIE_ROW).order_by(MOVIE.c.id)
EVERY_RATING = select(*_RATING_ROW).order_by(RATING.c.id)
MOVIES_BY_TITLE = select(*_MOVIE_ROW).where(MOVIE.c.title.in_(bindparam("titles", expanding=True)))
INSERT_MOVIES = insert(MOVIE).returning(MOVIE.c.id, MOVIE.c.title)
DESCRIBE_MOVIE = (
    update(MOVIE)
    .where(MOVIE.c.id == bindparam("this_movie"))
    .values(year=bindparam("new_year"), genre=bindparam("new_genre"))
)
LAST_RATING_ID = select(func.coalesce(func.max(RATING.c.id), 0))
COUNT_LATER_RATINGS = select(func.count()).where(RATING.c.id > bindparam("last_id"))


InsertT = TypeVar("InsertT", sqlite.Insert, postgresql.Insert)

_given = select(
    values(*(Column(own.name, own.type) for own in _RATING_ROW))
    .data([tuple(bindparam(f"given_{own.name}", type_=own.type) for own in _RATING_ROW)])
    .cte("given", nesting=True)
    # Within another select, as Python's driver counts the rows of what begins with INSERT only.
).subquery()
_standing = RATING.alias("standing")
# Looked for first, since even a conflict that changes nothing uses up an id.
_something_stands = exists().where(
    _standing.c.movie_id == _given.c.movie_id,
    _standing.c.user_id == _given.c.user_id,
    _standing.c.created_at >= _given.c.created_at,
)


def _merge_given(insert_rating: InsertT) -> InsertT:
    """Insert the given rating, instead of the user's own of the movie if that is older."""
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
    """Return SQL that does so with many ratings at once.

    Its parameters are RatingRow's fields, of one rating after the other, as SQLite stores them. It
    is text, since SQLAlchemy's handling of the parameters would take as long as storing them.
    """
    sql = str(_merge_given(sqlite.insert(RATING)).compile(dialect=sqlite.dialect()))
    marks = "(?, ?, ?, ?)"
    return sql.replace(marks, ", ".join([marks] * count))


_likeness = RATING.c["movie_id", "score", "created_at"]
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
        # Asked once: most imports have none and need not look through the others.
        exists().where(_later.c.user_id.is_(None), _later.c.id > bindparam("last_id")),
    )
    .subquery()
)
# Of the same anonymous ratings, as many of the later ones as there are earlier ones.
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
        # A row that stays as it is would still cost its five indexes.
        or_(
            MOVIE.c.rating_count != _recounted.c.count,
            MOVIE.c.rating_sum != _recounted.c.total,
        ),
    )
    .values(rating_aggregates(_recounted.c.count, cast(_recounted.c.total, Integer)))
)

"""The statements of MovieRepository, built once: building one costs more than running it.

They are written against the tables and not the mapped classes, which makes rows without the cost
of entities. No parameter is named like a column, as SQLAlchemy asks for.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    Float,
    Integer,
    Select,
    UnaryExpression,
    bindparam,
    case,
    cast,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    text,
    update,
    values,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel

from app.models import Movie, Rating

# The Bayesian average starts each movie with this many ratings of the scale's middle.
PRIOR_COUNT = 10
PRIOR_MEAN = 3.0

MOVIE = SQLModel.metadata.tables[str(Movie.__tablename__)]
RATING = SQLModel.metadata.tables[str(Rating.__tablename__)]

# In the order of MovieRead's and RatingRead's fields.
MOVIE_COLUMNS = MOVIE.c["id", "title", "year", "genre", "average_rating", "rating_count"]
RATING_COLUMNS = RATING.c["id", "movie_id", "user_id", "score", "created_at"]

_FILTERS: dict[str, ColumnElement[bool]] = {
    "of_genre": MOVIE.c.genre == bindparam("of_genre"),
    "pattern": MOVIE.c.search_title.like(bindparam("pattern"), escape="\\"),
    "year_min": MOVIE.c.year >= bindparam("year_min"),
    "year_max": MOVIE.c.year <= bindparam("year_max"),
    "min_ratings": MOVIE.c.rating_count >= bindparam("min_ratings"),
    "of_movie": RATING.c.movie_id == bindparam("of_movie"),
    "by_user": RATING.c.user_id == bindparam("by_user"),
}
# What a sort compares, and whether it does so descending. The last column is unique, which makes
# the order total.
_SORTS: dict[str, tuple[tuple[Column[Any], bool], ...]] = {
    "title": ((MOVIE.c.title, False),),
    "year": ((MOVIE.c.year, False), (MOVIE.c.id, False)),
    "id": ((MOVIE.c.id, False),),
    "rating_count": ((MOVIE.c.rating_count, False), (MOVIE.c.id, False)),
    # The reverse of this is the mean ranking.
    "average_rating": (
        (MOVIE.c.average_rating, False),
        (MOVIE.c.rating_count, False),
        (MOVIE.c.title, True),
    ),
}
_RANKINGS = {"mean": MOVIE.c.average_rating, "weighted": MOVIE.c.weighted_rating}


def _order(sort: str, *, backwards: bool) -> Iterator[UnaryExpression[Any]]:
    reverse = sort.startswith("-") != backwards
    for column, descending in _SORTS[sort.removeprefix("-")]:
        order = column.desc() if descending != reverse else column.asc()
        if column.nullable:
            # The engines disagree; here NULL is below every value.
            order = order.nulls_last() if descending != reverse else order.nulls_first()
        yield order


def _conditions(filters: tuple[str, ...]) -> list[ColumnElement[bool]]:
    return [_FILTERS[name] for name in filters]


def _paged(statement: Select[Any]) -> Select[Any]:
    return statement.limit(bindparam("row_limit")).offset(bindparam("row_offset"))


@cache
def page_of_movies(*filters: str, sort: str, backwards: bool) -> Select[Any]:
    """Select movies that pass the filters, in a sort's order or from its end."""
    order = _order(sort, backwards=backwards)
    return _paged(select(*MOVIE_COLUMNS).where(*_conditions(filters)).order_by(*order))


@cache
def count_movies(*filters: str) -> Select[int]:
    """Count the movies that pass the filters."""
    return select(func.count()).select_from(MOVIE).where(*_conditions(filters))


@cache
def page_of_ratings(*filters: str, backwards: bool) -> Select[Any]:
    """Select ratings that pass the filters, by id or from the last id on."""
    order = RATING.c.id.desc() if backwards else RATING.c.id.asc()
    return _paged(select(*RATING_COLUMNS).where(*_conditions(filters)).order_by(order))


@cache
def count_ratings(*filters: str) -> Select[int]:
    """Count the ratings that pass the filters; all of them by the movies' tallies, fewer rows."""
    if not filters:
        return select(func.coalesce(func.sum(MOVIE.c.rating_count), 0))
    return select(func.count()).select_from(RATING).where(*_conditions(filters))


@cache
def top_rated(*filters: str, ranking: str) -> Select[Any]:
    """Select the rated movies that pass the filters, best first."""
    score = _RANKINGS[ranking]
    return (
        select(*MOVIE_COLUMNS)
        .where(score.is_not(None), *_conditions(filters))
        .order_by(score.desc(), MOVIE.c.rating_count.desc(), MOVIE.c.title)
        .limit(bindparam("row_limit"))
    )


@cache
def unrated(*filters: str, ranking: str) -> Select[Any]:
    """Select the movies without ratings that pass the filters, by title."""
    return (
        select(*MOVIE_COLUMNS)
        # Both conditions, so that the ranking's index gives the titles in order.
        .where(_RANKINGS[ranking].is_(None), MOVIE.c.rating_count == 0)
        .where(*_conditions(filters))
        .order_by(MOVIE.c.title)
        .limit(bindparam("row_limit"))
    )


def tallies(count: ColumnElement[int], total: ColumnElement[int]) -> dict[str, ColumnElement[Any]]:
    """Return the tallies of a movie with ``count`` ratings whose scores add up to ``total``."""
    count_if_rated = func.nullif(count, 0)
    return {
        "rating_count": count,
        "rating_sum": total,
        "average_rating": cast(total, Float) / count_if_rated,
        "weighted_rating": (cast(total, Float) + PRIOR_COUNT * PRIOR_MEAN)
        / (count_if_rated + PRIOR_COUNT),
    }


_this_movie = MOVIE.c.id == bindparam("this_movie")
_its_ratings = RATING.c.movie_id == bindparam("this_movie")
_its_rating_by_user = (_its_ratings, RATING.c.user_id == bindparam("by_user"))

MOVIE_BY_ID = select(*MOVIE_COLUMNS).where(_this_movie)
INSERT_MOVIE = insert(MOVIE).returning(*MOVIE_COLUMNS)
UPDATE_MOVIE = update(MOVIE).where(_this_movie).returning(*MOVIE_COLUMNS)
DELETE_MOVIE = delete(MOVIE).where(_this_movie)
# Changes nothing, least of all a column with an index, but it is a write.
LOCK_MOVIE = (
    update(MOVIE).where(_this_movie).values(rating_sum=MOVIE.c.rating_sum).returning(MOVIE.c.id)
)
ADJUST_TALLIES = (
    update(MOVIE)
    .where(_this_movie)
    .values(
        tallies(
            MOVIE.c.rating_count + bindparam("count_change"),
            MOVIE.c.rating_sum + bindparam("sum_change"),
        )
    )
)

SCORE = select(RATING.c.score).where(*_its_rating_by_user)
INSERT_RATING = insert(RATING)
REPLACE_RATING = update(RATING).where(*_its_rating_by_user)
DELETE_RATING = delete(RATING).where(*_its_rating_by_user).returning(RATING.c.score)
DELETE_RATINGS = delete(RATING).where(_its_ratings)

SEARCH_TITLES = select(MOVIE.c.id, MOVIE.c.title, MOVIE.c.search_title).execution_options(
    yield_per=1000
)
COUNT_ORPHANS = select(func.count()).where(
    RATING.c.movie_id.not_in(select(MOVIE.c.id)),
)
_counted = (
    select(RATING.c.movie_id, func.count().label("count"), func.sum(RATING.c.score).label("total"))
    .group_by(RATING.c.movie_id)
    .subquery()
)
_true_tallies = tallies(
    func.coalesce(_counted.c.count, 0), cast(func.coalesce(_counted.c.total, 0), Integer)
)
WRONG_TALLIES = (
    select(MOVIE.c.id, MOVIE.c.title)
    .outerjoin(_counted, _counted.c.movie_id == MOVIE.c.id)
    .where(or_(*(MOVIE.c[name].is_distinct_from(true) for name, true in _true_tallies.items())))
)

# What the bulk methods run.
LOCK_CATALOGUE: dict[str, Executable] = {
    # It changes no row, but it is a write.
    "sqlite": update(MOVIE).where(false()).values(rating_sum=MOVIE.c.rating_sum),
    # Whoever writes a rating locks its movie first, and so waits here.
    "postgresql": text("LOCK TABLE movie IN SHARE ROW EXCLUSIVE MODE"),
}
# In KiB. Eight times SQLite's own, which a million ratings' indexes outgrow; it stays with the
# connection.
ENLARGE_CACHE = text("PRAGMA cache_size=-16384")
# In the order of MovieRow's and RatingRow's fields.
_MOVIE_ROW = MOVIE.c["id", "title", "year", "genre"]
_RATING_ROW = RATING.c["movie_id", "user_id", "score", "created_at"]
EVERY_MOVIE = select(*_MOVIE_ROW).order_by(MOVIE.c.id)
EVERY_RATING = select(*_RATING_ROW).order_by(RATING.c.id)
MOVIES_BY_TITLE = select(*_MOVIE_ROW).where(MOVIE.c.title.in_(bindparam("titles", expanding=True)))
INSERT_MOVIES = insert(MOVIE).returning(MOVIE.c.id, MOVIE.c.title)
DESCRIBE_MOVIE = (
    update(MOVIE)
    .where(_this_movie)
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
RECOUNT_TALLIES = (
    update(MOVIE)
    .where(
        MOVIE.c.id == _recounted.c.movie_id,
        # A row that stays as it is would still cost its five indexes.
        or_(
            MOVIE.c.rating_count != _recounted.c.count,
            MOVIE.c.rating_sum != _recounted.c.total,
        ),
    )
    .values(tallies(_recounted.c.count, cast(_recounted.c.total, Integer)))
)

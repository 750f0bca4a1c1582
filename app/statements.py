"""The statements of MovieRepository, built once: building one costs more than running it.

They select columns of tables, which costs less than half of loading entities; the bench's baseline
shows the usual form. Bound parameters must not be named like columns: SQLAlchemy reserves these
names.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from operator import methodcaller
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import UserDefinedType
from sqlmodel import SQLModel

from app.errors import IdsExhausted
from app.filters import MOVIES_OF_GENRE, conditions, is_search
from app.models import INTEGER_MAX
from app.read_models import MovieRead, RatingRead
from app.search import statements as search
from app.tables import MOVIE, MOVIE_GENRE, RATING
from app.text import GENRE_SEPARATOR

T = TypeVar("T")

# The prior of the Bayesian average: each movie starts with PRIOR_COUNT ratings of PRIOR_MEAN.
PRIOR_COUNT = 10
PRIOR_MEAN = 3.0


class GenreList(UserDefinedType[list[str]]):
    """Genres that are stored as joined text and read as a list."""

    cache_ok = True

    def result_processor(self, _dialect: sa.Dialect, _type: object) -> Callable[[str], list[str]]:
        """Return a function that splits the text."""
        return methodcaller("split", GENRE_SEPARATOR)


GENRES_COLUMN = sa.type_coerce(MOVIE.c.genre + MOVIE.c.other_genres, GenreList()).label("genres")
MOVIE_COLUMNS = tuple(
    GENRES_COLUMN if field.name == "genres" else MOVIE.c[field.name] for field in fields(MovieRead)
)
RATING_COLUMNS = RATING.c[tuple(field.name for field in fields(RatingRead))]

# The columns of each sort, and whether they descend. The last is unique, so the order is total.
_SORTS: dict[str, tuple[tuple[sa.Column[Any], bool], ...]] = {
    "title": ((MOVIE.c.sort_title, False), (MOVIE.c.title, False)),
    "relevance": ((MOVIE.c.title, False),),
    # While movies lack their sort title.
    "stored_title": ((MOVIE.c.title, False),),
    "year": ((MOVIE.c.year, False), (MOVIE.c.id, False)),
    "id": ((MOVIE.c.id, False),),
    "rating_count": ((MOVIE.c.rating_count, False), (MOVIE.c.id, False)),
    # Reversed, this is the mean ranking.
    "average_rating": (
        (MOVIE.c.average_rating, False),
        (MOVIE.c.rating_count, False),
        (MOVIE.c.title, True),
    ),
}
_RANKINGS = {"mean": MOVIE.c.average_rating, "weighted": MOVIE.c.weighted_rating}


class PageSlice(NamedTuple):
    """The rows of a page, counted from the nearer end of the list.

    An offset costs as much as the rows that it skips, so the last page would be the slowest.
    """

    backwards: bool
    limit: int
    offset: int

    @classmethod
    def of(cls, total: int, limit: int, offset: int) -> "PageSlice":
        """Return the slice of ``limit`` rows after ``offset`` of ``total``."""
        if offset <= total // 2:
            return cls(backwards=False, limit=limit, offset=offset)
        limit = max(0, min(limit, total - offset))
        return cls(backwards=True, limit=limit, offset=max(0, total - offset - limit))

    @property
    def parameters(self) -> dict[str, int]:
        """The bound parameters of a paged statement."""
        return {"row_limit": self.limit, "row_offset": self.offset}

    def in_order(self, rows: Sequence[T]) -> Iterable[T]:
        """Return the rows in the list's order."""
        return reversed(rows) if self.backwards else rows


def order_of(sort: str | None, filters: Collection[str], *, is_indexed: bool) -> str:
    """Return the name of the order of a list.

    Raises:
        ValueError: the order is by relevance, and there is no search.
    """
    order = sort or ("relevance" if is_search(filters) else "title")
    if order.endswith("relevance") and not is_search(filters):
        raise ValueError("relevance needs q, the text to search for")
    return order if is_indexed else order.replace("title", "stored_title")


def _order(
    sort: str, filters: tuple[str, ...], *, backwards: bool
) -> Iterator[sa.ColumnElement[Any]]:
    reverse = sort.startswith("-") != backwards
    name = sort.removeprefix("-")
    if name == "relevance":
        best = search.relevance(filters)
        yield sa.asc(best) if reverse else sa.desc(best)  # type: ignore[misc] # unary, of text
    for column, descending in _SORTS[name]:
        order = column.desc() if descending != reverse else column.asc()
        if column.nullable:
            # NULL sorts below every value; the engines' defaults differ.
            order = order.nulls_last() if descending != reverse else order.nulls_first()
        yield order


def _paged(statement: sa.Select[Any]) -> sa.Select[Any]:
    return statement.limit(sa.bindparam("row_limit")).offset(sa.bindparam("row_offset"))


_unindexed = MOVIE.alias("unindexed")


# Bounded: there is one statement for each number of words in a search.
@lru_cache(maxsize=1000)
def page_of_movies(*filters: str, sort: str, backwards: bool, scarce: bool) -> sa.Select[Any]:
    """Select the movies that match the filters, in a sort's order or its reverse.

    If matches are scarce, all are found and then sorted. Otherwise an index yields them in order.
    """
    order = _order(sort, filters, backwards=backwards)
    page = _paged(sa.select(*MOVIE_COLUMNS).order_by(*order))
    if not scarce or sort.endswith("relevance"):
        return page.where(*conditions(filters))
    return page.where(MOVIE.c.id.in_(_matching(filters)))


def _matching(filters: tuple[str, ...]) -> sa.Select[Any]:
    if filters == ("of_genre",):
        return MOVIES_OF_GENRE
    return sa.select(MOVIE.c.id).where(*conditions(filters, genre_first=True))


@lru_cache(maxsize=1000)
def count_movies(*filters: str) -> sa.Select[int, bool]:
    """Count the movies that match the filters, and select whether any movie is not indexed."""
    not_indexed = sa.exists(sa.select(_unindexed.c.id).where(_unindexed.c.sort_title == ""))
    return _matching(filters).with_only_columns(
        sa.func.count(), not_indexed, maintain_column_froms=True
    )


@cache
def page_of_ratings(*filters: str, backwards: bool) -> sa.Select[Any]:
    """Select the ratings that match the filters, by ascending or descending id."""
    order = RATING.c.id.desc() if backwards else RATING.c.id.asc()
    return _paged(sa.select(*RATING_COLUMNS).where(*conditions(filters)).order_by(order))


@cache
def count_ratings(*filters: str) -> sa.Select[int]:
    """Count the ratings that match the filters, or without filters sum the movies' aggregates."""
    if not filters:
        return sa.select(sa.func.coalesce(sa.func.sum(MOVIE.c.rating_count), 0))
    return sa.select(sa.func.count()).select_from(RATING).where(*conditions(filters))


@cache
def top_rated(*filters: str, ranking: str, genre_first: bool = False) -> sa.Select[Any]:
    """Select the rated movies that match the filters, best first."""
    score = _RANKINGS[ranking]
    return (
        sa.select(*MOVIE_COLUMNS)
        .where(score.is_not(None), *conditions(filters, genre_first=genre_first))
        .order_by(score.desc(), MOVIE.c.rating_count.desc(), MOVIE.c.title)
        .limit(sa.bindparam("row_limit"))
    )


@cache
def unrated(*filters: str, ranking: str, genre_first: bool = False) -> sa.Select[Any]:
    """Select the unrated movies that match the filters, by title."""
    return (
        sa.select(*MOVIE_COLUMNS)
        # With both conditions, the ranking's index yields the titles in order.
        .where(_RANKINGS[ranking].is_(None), MOVIE.c.rating_count == 0)
        .where(*conditions(filters, genre_first=genre_first))
        .order_by(MOVIE.c.title)
        .limit(sa.bindparam("row_limit"))
    )


def rating_aggregates(
    count: sa.ColumnElement[int], total: sa.ColumnElement[int]
) -> dict[str, sa.ColumnElement[Any]]:
    """Return the aggregates of a movie with ``count`` ratings whose scores sum to ``total``."""
    count_if_rated = sa.func.nullif(count, 0)
    return {
        "rating_count": count,
        "rating_sum": total,
        "average_rating": sa.cast(total, sa.Float) / count_if_rated,
        "weighted_rating": (sa.cast(total, sa.Float) + PRIOR_COUNT * PRIOR_MEAN)
        / (count_if_rated + PRIOR_COUNT),
    }


def require_id_in_range(new_id: int) -> None:
    """Raise an error for an id that paths do not accept, which only SQLite can generate.

    PostgreSQL's sequences end at INTEGER_MAX, SQLite's at 2^63.

    Raises:
        IdsExhausted: the id is above INTEGER_MAX.
    """
    if new_id > INTEGER_MAX:
        raise IdsExhausted


_this_movie = MOVIE.c.id == sa.bindparam("this_movie")
_its_ratings = RATING.c.movie_id == sa.bindparam("this_movie")
BY_USER = RATING.c.user_id == sa.bindparam("by_user")
ITS_RATING_BY_USER = (_its_ratings, BY_USER)

GENRES = (
    sa.select(MOVIE_GENRE.c.genre, sa.func.count().label("movie_count"))
    .group_by(MOVIE_GENRE.c.genre)
    .order_by(sa.func.count().desc(), MOVIE_GENRE.c.genre)
)
MOVIE_BY_ID = sa.select(*MOVIE_COLUMNS).where(_this_movie)
INSERT_MOVIE = sa.insert(MOVIE).returning(*MOVIE_COLUMNS)
INSERT_MOVIE_OR_IGNORE = {
    "sqlite": sqlite.insert(MOVIE).on_conflict_do_nothing().returning(*MOVIE_COLUMNS),
    "postgresql": postgresql.insert(MOVIE).on_conflict_do_nothing().returning(*MOVIE_COLUMNS),
}
# The columns of which no two movies have the same value, and the movies that have given ones.
UNIQUE = ("title", "imdb_id", "tmdb_id")
HOLDERS = sa.select(MOVIE.c.id, *MOVIE.c[UNIQUE]).where(
    MOVIE.c.id != sa.bindparam("this_movie"),
    sa.or_(*(MOVIE.c[n] == sa.bindparam(f"new_{n}") for n in UNIQUE)),
)
UPDATE_MOVIE = sa.update(MOVIE).where(_this_movie).returning(*MOVIE_COLUMNS)
DELETE_MOVIE = sa.delete(MOVIE).where(_this_movie)
# One for each foreign key to a movie.
DELETE_REFERENCES = [
    sa.delete(table).where(key.parent == sa.bindparam("this_movie"))
    for table in SQLModel.metadata.sorted_tables
    for key in table.foreign_keys
    if key.references(MOVIE)
]
INSERT_GENRES = sa.insert(MOVIE_GENRE)
DELETE_GENRES = sa.delete(MOVIE_GENRE).where(MOVIE_GENRE.c.movie_id == sa.bindparam("this_movie"))
# Locks the row on PostgreSQL, but still allows new ratings to reference it. SQLite has no FOR
# UPDATE and needs none, because its write lock covers the database.
LOCK_MOVIE = MOVIE_BY_ID.with_for_update(key_share=True)
ADJUST_AGGREGATES = (
    sa.update(MOVIE)
    .where(_this_movie)
    .values(
        rating_aggregates(
            MOVIE.c.rating_count + sa.bindparam("count_change"),
            MOVIE.c.rating_sum + sa.bindparam("sum_change"),
        )
    )
)

RATING_BY_USER = sa.select(*RATING_COLUMNS).where(*ITS_RATING_BY_USER)
LATEST_ANONYMOUS = (
    sa.select(*RATING_COLUMNS)
    .where(_its_ratings, RATING.c.user_id.is_(None))
    .order_by(RATING.c.id.desc())
    .limit(1)
)
COUNT_SCORES = (
    sa.select(RATING.c.score, sa.func.count()).where(_its_ratings).group_by(RATING.c.score)
)
DELETE_RATING = sa.delete(RATING).where(*ITS_RATING_BY_USER).returning(RATING.c.score)

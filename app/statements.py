"""The statements of MovieRepository, built once: building one costs more than running it.

They select columns of tables, which costs less than half of loading entities; the bench's baseline
shows the textbook form. Parameters never share a column's name, as SQLAlchemy requires.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Float,
    Integer,
    Select,
    String,
    Table,
    TypeDecorator,
    UnaryExpression,
    and_,
    any_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    type_coerce,
    update,
)
from sqlmodel import SQLModel

from app.models import GENRE_SEPARATOR, Movie, MovieGenre, Rating
from app.read_models import MovieRead, RatingRead

T = TypeVar("T")

# The Bayesian average's prior: each movie starts with this many ratings of the scale's middle.
PRIOR_COUNT = 10
PRIOR_MEAN = 3.0
# In a catalogue of MovieLens' size, finding and sorting n matches takes as long as a walk in order
# to as many as are wanted where n^2 is about this many times their number. To find the matches of a
# search takes a scan, so there a walk is longer the cheaper way.
WALK = 100_000
WALK_OF_A_SEARCH = 1_000

MOVIE = SQLModel.metadata.tables[str(Movie.__tablename__)]
RATING = SQLModel.metadata.tables[str(Rating.__tablename__)]

MOVIE_GENRE = SQLModel.metadata.tables[str(MovieGenre.__tablename__)]


class GenreList(TypeDecorator[list[str]]):
    """Genres joined by their separator, read as a list."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: str | None, _dialect: Dialect) -> list[str] | None:
        """Split the text."""
        return None if value is None else value.split(GENRE_SEPARATOR)


_genres = type_coerce(MOVIE.c.genre + MOVIE.c.other_genres, GenreList()).label("genres")
MOVIE_COLUMNS = tuple(
    _genres if field.name == "genres" else MOVIE.c[field.name] for field in fields(MovieRead)
)
RATING_COLUMNS = RATING.c[tuple(field.name for field in fields(RatingRead))]

_movies_of_genre = select(MOVIE_GENRE.c.movie_id).where(
    MOVIE_GENRE.c.genre == bindparam("of_genre")
)
_FILTERS: dict[str, ColumnElement[bool]] = {
    "of_genre": _movies_of_genre.where(MOVIE_GENRE.c.movie_id == MOVIE.c.id).exists(),
    "of_imdb_id": MOVIE.c.imdb_id == bindparam("of_imdb_id"),
    "of_tmdb_id": MOVIE.c.tmdb_id == bindparam("of_tmdb_id"),
    "year_min": MOVIE.c.year >= bindparam("year_min"),
    "year_max": MOVIE.c.year <= bindparam("year_max"),
    "min_ratings": MOVIE.c.rating_count >= bindparam("min_ratings"),
    "of_movie": RATING.c.movie_id == bindparam("of_movie"),
    "by_user": RATING.c.user_id == bindparam("by_user"),
    "after_rating": RATING.c.id > bindparam("after_rating"),
}
# The columns of each sort, and whether they descend. The last one is unique: the order is total.
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
_WORD = "word_"
_RANKINGS = {"mean": MOVIE.c.average_rating, "weighted": MOVIE.c.weighted_rating}


class PageSlice(NamedTuple):
    """The rows of a page, counted from the nearer end of the list.

    An offset costs as much as the rows it skips, so the last page would cost the most.
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
        """Return the rows in the list's own order."""
        return reversed(rows) if self.backwards else rows


def _order(sort: str, *, backwards: bool) -> Iterator[UnaryExpression[Any]]:
    reverse = sort.startswith("-") != backwards
    for column, descending in _SORTS[sort.removeprefix("-")]:
        order = column.desc() if descending != reverse else column.asc()
        if column.nullable:
            # NULL sorts below every value; the engines' defaults differ.
            order = order.nulls_last() if descending != reverse else order.nulls_first()
        yield order


def word_filters(words: Iterable[str]) -> dict[str, str]:
    """Return a filter for each word that a title's search key has to contain."""
    escaped = (re.sub(r"([\\%_])", r"\\\1", word) for word in words)
    return {f"{_WORD}{place}": f"%{word}%" for place, word in enumerate(escaped)}


def conditions(
    filters: Iterable[str], *, genre_first: bool = False
) -> Iterator[ColumnElement[bool]]:
    """Yield the condition of each filter, which is named like its parameter.

    SQLite begins with the genre's movies if ``genre_first``, and otherwise looks at each movie that
    the rest of the statement leads to. PostgreSQL decides for itself.
    """
    for name in filters:
        if name.startswith(_WORD):
            yield MOVIE.c.search_title.like(bindparam(name), escape="\\")
        elif name == "of_genre" and genre_first:
            yield MOVIE.c.id.in_(_movies_of_genre)
        else:
            yield _FILTERS[name]


def _paged(statement: Select[Any]) -> Select[Any]:
    return statement.limit(bindparam("row_limit")).offset(bindparam("row_offset"))


# Bounded, for there is one for each number of words in a search.
@lru_cache(maxsize=1000)
def page_of_movies(*filters: str, sort: str, backwards: bool, scarce: bool) -> Select[Any]:
    """Select the movies that match the filters, in a sort's order or its reverse.

    Scarce matches are found first and sorted. Of many, the first are met on a walk in the order.
    """
    order = _order(sort, backwards=backwards)
    page = _paged(select(*MOVIE_COLUMNS).order_by(*order))
    if not scarce:
        return page.where(*conditions(filters))
    return page.where(MOVIE.c.id.in_(_matching(filters)))


def is_scarce(matches: int, wanted: int, *, searched: bool = False) -> bool:
    """Tell whether sorting all matches is cheaper than a walk in order to as many as are wanted."""
    return matches**2 <= wanted * (WALK_OF_A_SEARCH if searched else WALK)


def _matching(filters: tuple[str, ...]) -> Select[Any]:
    if filters == ("of_genre",):
        return _movies_of_genre
    return select(MOVIE.c.id).where(*conditions(filters, genre_first=True))


@lru_cache(maxsize=1000)
def count_movies(*filters: str) -> Select[int]:
    """Count the movies that match the filters."""
    return _matching(filters).with_only_columns(func.count(), maintain_column_froms=True)


@cache
def page_of_ratings(*filters: str, backwards: bool) -> Select[Any]:
    """Select the ratings that match the filters, by ascending or descending id."""
    order = RATING.c.id.desc() if backwards else RATING.c.id.asc()
    return _paged(select(*RATING_COLUMNS).where(*conditions(filters)).order_by(order))


@cache
def count_ratings(*filters: str) -> Select[int]:
    """Count the ratings that match the filters. Unfiltered, sums the movies' aggregates instead."""
    if not filters:
        return select(func.coalesce(func.sum(MOVIE.c.rating_count), 0))
    return select(func.count()).select_from(RATING).where(*conditions(filters))


@cache
def top_rated(*filters: str, ranking: str, genre_first: bool = False) -> Select[Any]:
    """Select the rated movies that match the filters, best first."""
    score = _RANKINGS[ranking]
    return (
        select(*MOVIE_COLUMNS)
        .where(score.is_not(None), *conditions(filters, genre_first=genre_first))
        .order_by(score.desc(), MOVIE.c.rating_count.desc(), MOVIE.c.title)
        .limit(bindparam("row_limit"))
    )


@cache
def unrated(*filters: str, ranking: str, genre_first: bool = False) -> Select[Any]:
    """Select the unrated movies that match the filters, by title."""
    return (
        select(*MOVIE_COLUMNS)
        # With both conditions the ranking's index yields the titles in order.
        .where(_RANKINGS[ranking].is_(None), MOVIE.c.rating_count == 0)
        .where(*conditions(filters, genre_first=genre_first))
        .order_by(MOVIE.c.title)
        .limit(bindparam("row_limit"))
    )


def rating_aggregates(
    count: ColumnElement[int], total: ColumnElement[int]
) -> dict[str, ColumnElement[Any]]:
    """Return the aggregates of a movie with ``count`` ratings whose scores add up to ``total``."""
    count_if_rated = func.nullif(count, 0)
    return {
        "rating_count": count,
        "rating_sum": total,
        "average_rating": cast(total, Float) / count_if_rated,
        "weighted_rating": (cast(total, Float) + PRIOR_COUNT * PRIOR_MEAN)
        / (count_if_rated + PRIOR_COUNT),
    }


def sequence_state(sequence: str) -> Select[Any]:
    """Select the last id that a sequence of PostgreSQL has given out, or else is to give out."""
    return select(text("last_value"), text("is_called")).select_from(text(sequence))


_this_movie = MOVIE.c.id == bindparam("this_movie")
_its_ratings = RATING.c.movie_id == bindparam("this_movie")
_its_rating_by_user = (_its_ratings, RATING.c.user_id == bindparam("by_user"))

COUNT_GENRE_UP_TO = select(func.count()).select_from(
    _movies_of_genre.limit(bindparam("row_limit")).subquery()
)
GENRES = (
    select(MOVIE_GENRE.c.genre, func.count().label("movie_count"))
    .group_by(MOVIE_GENRE.c.genre)
    .order_by(func.count().desc(), MOVIE_GENRE.c.genre)
)
MOVIE_BY_ID = select(*MOVIE_COLUMNS).where(_this_movie)
INSERT_MOVIE = insert(MOVIE).returning(*MOVIE_COLUMNS)
UPDATE_MOVIE = update(MOVIE).where(_this_movie).returning(*MOVIE_COLUMNS)
DELETE_MOVIE = delete(MOVIE).where(_this_movie)
# Of every table, by each of its foreign keys to a movie.
DELETE_REFERENCES = [
    delete(table).where(key.parent == bindparam("this_movie"))
    for table in SQLModel.metadata.sorted_tables
    for key in table.foreign_keys
    if key.references(MOVIE)
]
INSERT_GENRES = insert(MOVIE_GENRE)
DELETE_GENRES = delete(MOVIE_GENRE).where(MOVIE_GENRE.c.movie_id == bindparam("this_movie"))
# Locks the row on PostgreSQL, where ratings may still refer to it. SQLite ignores FOR UPDATE:
# its write lock covers the whole database.
LOCK_MOVIE = MOVIE_BY_ID.with_for_update(key_share=True)
ADJUST_AGGREGATES = (
    update(MOVIE)
    .where(_this_movie)
    .values(
        rating_aggregates(
            MOVIE.c.rating_count + bindparam("count_change"),
            MOVIE.c.rating_sum + bindparam("sum_change"),
        )
    )
)

RATING_BY_USER = select(*RATING_COLUMNS).where(*_its_rating_by_user)
SCORE = select(RATING.c.score).where(*_its_rating_by_user)
COUNT_SCORES = select(RATING.c.score, func.count()).where(_its_ratings).group_by(RATING.c.score)
INSERT_RATING = insert(RATING).returning(*RATING_COLUMNS)
REPLACE_RATING = update(RATING).where(*_its_rating_by_user).returning(*RATING_COLUMNS)
DELETE_RATING = delete(RATING).where(*_its_rating_by_user).returning(RATING.c.score)

# Batches of ratings. The list of pairs is one parameter that the query joins with: for a list of
# pairs after IN, SQLite would scan the whole table.
_ids = func.json_each(bindparam("movie_ids")).table_valued("value")
_pairs = func.json_each(bindparam("pairs")).table_valued("value")
_id_array = bindparam("movie_ids", type_=ARRAY(Integer))
_given = (
    func.unnest(
        bindparam("of_movies", type_=ARRAY(Integer)), bindparam("by_users", type_=ARRAY(BigInteger))
    )
    .table_valued("movie_id", "user_id")
    .render_derived()
)
LOCK_MOVIES: dict[str, Select[Any]] = {
    "sqlite": select(MOVIE.c.id).where(MOVIE.c.id.in_(select(_ids.c.value))),
    # Locked in id order, so that two batches cannot deadlock.
    "postgresql": (
        select(MOVIE.c.id)
        .where(MOVIE.c.id == any_(_id_array))
        .order_by(MOVIE.c.id)
        .with_for_update(key_share=True)
    ),
}
_user_rating = RATING.c["movie_id", "user_id", "score"]
SCORES: dict[str, Select[Any]] = {
    "sqlite": select(*_user_rating).join_from(
        _pairs,
        RATING,
        and_(
            RATING.c.movie_id == func.json_extract(_pairs.c.value, "$[0]"),
            RATING.c.user_id == func.json_extract(_pairs.c.value, "$[1]"),
        ),
    ),
    "postgresql": select(*_user_rating).join_from(
        _given,
        RATING,
        and_(RATING.c.movie_id == _given.c.movie_id, RATING.c.user_id == _given.c.user_id),
    ),
}
INSERT_RATINGS = insert(RATING)
REPLACE_RATINGS = (
    update(RATING)
    .where(*_its_rating_by_user)
    .values(score=bindparam("new_score"), created_at=bindparam("new_created_at"))
)

# The sequence behind the ids of a table, as PostgreSQL spells its name; None if it owns none.
SEQUENCE = select(func.pg_get_serial_sequence(bindparam("of_table"), "id"))
LARGEST_ID: dict[Table, Select[Any]] = {
    table: select(func.max(table.c.id)) for table in (MOVIE, RATING)
}

MOVIE_TEXTS: Select[Any] = select(
    *MOVIE.c["id", "title", "search_title", "imdb_id"], _genres
).order_by(MOVIE.c.id)
EVERY_GENRE = select(MOVIE_GENRE.c.movie_id, MOVIE_GENRE.c.genre).order_by(MOVIE_GENRE.c.movie_id)
COUNT_ORPHANS = select(func.count()).where(
    RATING.c.movie_id.not_in(select(MOVIE.c.id)),
)
_counted = (
    select(RATING.c.movie_id, func.count().label("count"), func.sum(RATING.c.score).label("total"))
    .group_by(RATING.c.movie_id)
    .subquery()
)
_true_aggregates = rating_aggregates(
    func.coalesce(_counted.c.count, 0), cast(func.coalesce(_counted.c.total, 0), Integer)
)
WRONG_AGGREGATES = (
    select(MOVIE.c.id, MOVIE.c.title)
    .outerjoin(_counted, _counted.c.movie_id == MOVIE.c.id)
    .where(or_(*(MOVIE.c[name].is_distinct_from(true) for name, true in _true_aggregates.items())))
)

"""Filters of lists: they turn a caller's selection into the conditions of a statement.

A filter is named like its bound parameter, so a statement is built once for each set of filters.
"""

from collections.abc import Collection, Iterator
from math import isqrt
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Connection, TextClause, bindparam, func, select

from app.read_models import MovieSelection
from app.search import statements as search
from app.search.lookup import find
from app.tables import MOVIE, MOVIE_GENRE, RATING
from app.text import normalize_genre, normalize_imdb_id

# Parameters of a statement by filter name; only the filters that were given.
Filters = dict[str, Any]

# Sorting all n matches is cheaper than walking an index to the wanted ones if n^2 is at most
# wanted * SCARCITY, in a catalogue of MovieLens' size.
SCARCITY = 100_000

MOVIES_OF_GENRE = select(MOVIE_GENRE.c.movie_id).where(MOVIE_GENRE.c.genre == bindparam("of_genre"))
_COUNT_GENRE_UP_TO = select(func.count()).select_from(
    MOVIES_OF_GENRE.limit(bindparam("row_limit")).subquery()
)
_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "of_genre": MOVIES_OF_GENRE.where(MOVIE_GENRE.c.movie_id == MOVIE.c.id).exists(),
    "of_imdb_id": MOVIE.c.imdb_id == bindparam("of_imdb_id"),
    "of_tmdb_id": MOVIE.c.tmdb_id == bindparam("of_tmdb_id"),
    "of_year_min": MOVIE.c.year >= bindparam("of_year_min"),
    "of_year_max": MOVIE.c.year <= bindparam("of_year_max"),
    "min_ratings": MOVIE.c.rating_count >= bindparam("min_ratings"),
    "of_movie": RATING.c.movie_id == bindparam("of_movie"),
    "by_user": RATING.c.user_id == bindparam("by_user"),
    "after_rating": RATING.c.id > bindparam("after_rating"),
}


def movie_filters(**selection: Unpack[MovieSelection]) -> Filters:
    """Return the filters of a statement that selects movies, without those of a search."""
    given = _given(**selection)
    if "genre" in given:
        given["genre"] = normalize_genre(given["genre"])
    if "imdb_id" in given:
        given["imdb_id"] = normalize_imdb_id(given["imdb_id"])
    given.pop("q", None)
    return {f"of_{name}": value for name, value in given.items()}


def find_movies(
    connection: Connection, **selection: Unpack[MovieSelection]
) -> tuple[Filters, str | None]:
    """Return the filters that select movies, and the text searched instead of ``q``, if any."""
    search_filters, searched_for = find(connection, selection.get("q"))
    return movie_filters(**selection) | search_filters, searched_for


def is_search(filters: Collection[str]) -> bool:
    """Return whether some of the filters are those of a search."""
    return any(name.startswith(search.PREFIX) for name in filters)


def rating_filters(*, movie_id: int | None = None, user_id: int | None = None) -> Filters:
    """Return the filters of a statement that selects ratings."""
    return _given(of_movie=movie_id, by_user=user_id)


def conditions(
    filters: Collection[str], *, genre_first: bool = False
) -> Iterator[ColumnElement[bool] | TextClause]:
    """Yield the condition of each filter.

    With ``genre_first``, SQLite starts from the genre's movies; otherwise it checks the genre of
    each movie that the rest of the statement finds. On PostgreSQL the planner decides.
    """
    searched = [name for name in filters if name.startswith(search.PREFIX)]
    if searched:
        yield search.condition(searched)
    for name in filters:
        if name == "of_genre" and genre_first:
            yield MOVIE.c.id.in_(MOVIES_OF_GENRE)
        elif name not in searched:
            yield _CONDITIONS[name]


def is_scarce(filters: Collection[str], matches: int, wanted: int) -> bool:
    """Return whether sorting all matches is cheaper than walking in order to the wanted ones."""
    if is_search(filters):
        # A search finds all its matches first.
        return True
    return bool(filters) and matches**2 <= wanted * SCARCITY


def is_rare_genre(connection: Connection, filters: Filters, wanted: int) -> bool:
    """Return whether a ranking within a genre should start from the genre's movies."""
    enough = isqrt(wanted * SCARCITY) + 1
    parameters = {"of_genre": filters["of_genre"], "row_limit": enough}
    count = connection.execute(_COUNT_GENRE_UP_TO, parameters).scalar_one()
    return is_scarce(["of_genre"], count, wanted)


def _given(**filters: object) -> Filters:
    return {name: value for name, value in filters.items() if value is not None}

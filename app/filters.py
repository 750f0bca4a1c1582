"""Filters of lists: they turn a caller's selection into the conditions of a statement.

A filter is named like its bound parameter, so a statement is built once for each set of filters.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from math import isqrt
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from app.read_models import MovieSelection
from app.search import search_words
from app.tables import MOVIE, MOVIE_GENRE, RATING
from app.text import normalize_genre, normalize_imdb_id, normalize_text

# Parameters of a statement by filter name; only the filters that were given.
Filters = dict[str, Any]

# Sorting all n matches is cheaper than walking an index to the wanted ones if n^2 is at most
# wanted * SCARCITY, in a catalogue of MovieLens' size. For a search the limit is lower, because
# finding all its matches takes a scan.
SCARCITY = 100_000
SCARCITY_IN_SEARCH = 1_000

_WORD = "word_"
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
    """Return the filters of a statement that selects movies."""
    given = _given(**selection)
    if "genre" in given:
        given["genre"] = normalize_genre(given["genre"])
    if "imdb_id" in given:
        given["imdb_id"] = normalize_imdb_id(given["imdb_id"])
    words = search_words(normalize_text(given.pop("q", "")))
    return {f"of_{name}": value for name, value in given.items()} | word_filters(words)


def rating_filters(*, movie_id: int | None = None, user_id: int | None = None) -> Filters:
    """Return the filters of a statement that selects ratings."""
    return _given(of_movie=movie_id, by_user=user_id)


def word_filters(words: Iterable[str]) -> Filters:
    """Return a filter for each word that a title's search key must contain."""
    escaped = (re.sub(r"([\\%_])", r"\\\1", word) for word in words)
    return {f"{_WORD}{place}": f"%{word}%" for place, word in enumerate(escaped)}


def conditions(
    filters: Iterable[str], *, genre_first: bool = False
) -> Iterator[ColumnElement[bool]]:
    """Yield the condition of each filter.

    With ``genre_first``, SQLite starts from the genre's movies; otherwise it checks the genre of
    each movie that the rest of the statement finds. On PostgreSQL the planner decides.
    """
    for name in filters:
        if name.startswith(_WORD):
            yield MOVIE.c.search_title.like(bindparam(name), escape="\\")
        elif name == "of_genre" and genre_first:
            yield MOVIE.c.id.in_(MOVIES_OF_GENRE)
        else:
            yield _CONDITIONS[name]


def is_scarce(filters: Collection[str], matches: int, wanted: int) -> bool:
    """Return whether sorting all matches is cheaper than walking in order to the wanted ones."""
    if not filters:
        return False
    searched = any(name.startswith(_WORD) for name in filters)
    return matches**2 <= wanted * (SCARCITY_IN_SEARCH if searched else SCARCITY)


def is_rare_genre(connection: Connection, filters: Filters, wanted: int) -> bool:
    """Return whether a ranking within a genre should start from the genre's movies."""
    enough = isqrt(wanted * SCARCITY) + 1
    parameters = {"of_genre": filters["of_genre"], "row_limit": enough}
    count = connection.execute(_COUNT_GENRE_UP_TO, parameters).scalar_one()
    return is_scarce(["of_genre"], count, wanted)


def _given(**filters: object) -> Filters:
    return {name: value for name, value in filters.items() if value is not None}

"""Rows of movies: how a movie's fields are stored, locked and changed in an open transaction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app import statements
from app.db import violated_constraint
from app.errors import DuplicateExternalId, DuplicateTitle, MovieNotFound
from app.models import YEAR_MAX, YEAR_MIN
from app.read_models import MovieChanges, MovieRead, NewMovie
from app.search import search_key
from app.text import genre_columns, normalize_genres, normalize_imdb_id, normalize_title

# Raises unless a movie is as its caller expects; called with the stored movie.
Precondition = Callable[[MovieRead], None]

EXTERNAL_IDS = ("imdb_id", "tmdb_id")


def insert_movie(connection: Connection, movie: NewMovie) -> MovieRead:
    """Store a movie and return it.

    Raises:
        DuplicateTitle: another movie has this title.
        DuplicateExternalId: another movie has this IMDb or TMDB id.
        IdsExhausted: no id is left.
        ValueError: a value is out of its bounds.
    """
    columns = _columns_of_new(movie)
    with _unique(columns):
        row = connection.execute(statements.INSERT_MOVIE, columns).one()
    return _complete(connection, MovieRead(*row))


def insert_if_missing(connection: Connection, movie: NewMovie) -> bool:
    """Store a movie unless another one has its title or ids, and return whether it was stored.

    Raises:
        IdsExhausted: no id is left.
        ValueError: a value is out of its bounds.
    """
    insert = statements.INSERT_MOVIE_OR_IGNORE[connection.dialect.name]
    row = connection.execute(insert, _columns_of_new(movie)).one_or_none()
    if row is not None:
        _complete(connection, MovieRead(*row))
    return row is not None


def update_movie(
    connection: Connection, movie: MovieRead, **changes: Unpack[MovieChanges]
) -> MovieRead:
    """Change fields of a locked movie and return it.

    Raises:
        DuplicateTitle: another movie has this title.
        DuplicateExternalId: another movie has this IMDb or TMDB id.
        ValueError: a value is out of its bounds.
    """
    if "genre" in changes and "genres" not in changes:
        changes["genres"] = [changes["genre"], *movie.genres[1:]]
    columns = _columns_of(**changes)
    with _unique(columns):
        update = statements.UPDATE_MOVIE.values(columns)
        changed = MovieRead(*connection.execute(update, {"this_movie": movie.id}).one())
    if "genres" in changes:  # even if they are equal: an older version stores no genre rows
        connection.execute(statements.DELETE_GENRES, {"this_movie": movie.id})
        _insert_genres(connection, changed)
    return changed


def lock_movie(
    connection: Connection, movie_id: int, precondition: Precondition | None = None
) -> MovieRead:
    """Return a movie that nobody else changes or rates until the transaction ends.

    Raises:
        MovieNotFound: no movie has this id.
    """
    row = connection.execute(statements.LOCK_MOVIE, {"this_movie": movie_id}).one_or_none()
    if row is None:
        raise MovieNotFound(movie_id)
    movie = MovieRead(*row)
    if precondition is not None:
        precondition(movie)
    return movie


def _columns_of_new(movie: NewMovie) -> dict[str, Any]:
    return _columns_of(**(movie._asdict() | {"genres": movie.genres or [movie.genre]}))


def _columns_of(**fields: Unpack[MovieChanges]) -> dict[str, Any]:
    columns: dict[str, Any] = {**fields}
    if "title" in columns:
        columns["title"] = normalize_title(columns["title"])
        columns["search_title"] = search_key(columns["title"])
    if not YEAR_MIN <= columns.get("year", YEAR_MIN) <= YEAR_MAX:
        raise ValueError(f"year must be from {YEAR_MIN} to {YEAR_MAX}")
    if "genres" in columns:
        columns |= genre_columns(normalize_genres(columns.pop("genres")))
    if columns.get("imdb_id") is not None:
        columns["imdb_id"] = normalize_imdb_id(columns["imdb_id"])
    return columns


def _complete(connection: Connection, movie: MovieRead) -> MovieRead:
    """Store the genres of a new movie and return it."""
    statements.require_id_in_range(movie.id)
    _insert_genres(connection, movie)
    return movie


def _insert_genres(connection: Connection, movie: MovieRead) -> None:
    rows = [{"movie_id": movie.id, "genre": genre} for genre in movie.genres]
    connection.execute(statements.INSERT_GENRES, rows)


@contextmanager
def _unique(columns: dict[str, Any]) -> Iterator[None]:
    """Turn a violated constraint of a movie into the error that names it."""
    try:
        yield
    except IntegrityError as error:
        field = (violated_constraint(error) or "").removeprefix("uq_movie_")
        if field == "title":
            raise DuplicateTitle(columns[field]) from error
        if field in EXTERNAL_IDS:
            raise DuplicateExternalId(
                f"A movie with this {field} already exists: {columns[field]}"
            ) from error
        raise

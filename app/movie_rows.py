"""Rows of movies: how a movie's fields are stored, locked and changed in an open transaction."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, Unpack

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import statements
from app.db import after_commit, database_error, reading, writing
from app.errors import DatabaseBusy, DuplicateExternalId, DuplicateTitle, MovieNotFound
from app.logs import log_event
from app.models import INTEGER_MAX, YEAR_MAX, YEAR_MIN
from app.rating_batch import require_bounds
from app.read_models import MovieChanges, MovieRead, NewMovie, Precondition
from app.search import title_columns
from app.search.index import insert_words, replace_words
from app.text import genre_columns, normalize_genres, normalize_imdb_id, normalize_title

T = TypeVar("T")


def _unique(
    session: Session, write: Callable[[], T], movie_id: int = 0, **fields: Unpack[MovieChanges]
) -> T:
    """Return the result of a write of a movie's title and ids.

    If it violates a unique constraint, they are looked up after the rollback: the name of the
    constraint depends on the tool that made the table. If no other movie has them any more, the
    write is tried once more.

    Args:
        session: the session that it writes with.
        write: rolls its changes back if it raises.
        movie_id: the movie that it changes.
        fields: what it writes.

    Raises:
        DuplicateTitle: another movie has this title.
        DuplicateExternalId: another movie has this IMDb or TMDB id.
    """
    try:
        return write()
    except IntegrityError as error:
        if not isinstance(database_error(error), DatabaseBusy):
            raise
        violation = error
    columns = _columns_of(**fields)
    with reading(session) as connection:
        taken = _taken(connection, columns, movie_id)
    if taken is None:
        return write()
    if taken == "title":
        raise DuplicateTitle(columns[taken]) from violation
    named = f"A movie with this {taken} already exists: {columns[taken]}"
    raise DuplicateExternalId(named) from violation


def create_movie(session: Session, movie: NewMovie) -> MovieRead:
    """Store a movie and return it; see ``MovieRepository.create``."""

    def insert() -> MovieRead:
        with writing(session) as connection:
            row = connection.execute(statements.INSERT_MOVIE, _columns_of_new(movie)).one()
            after_commit(session, partial(log_event, "movie.created", movie_id=row.id))
            return _complete(connection, MovieRead(*row))

    return _unique(session, insert, title=movie.title, imdb_id=movie.imdb_id, tmdb_id=movie.tmdb_id)


def change_movie(
    session: Session,
    movie_id: int,
    precondition: Precondition | None,
    **changes: Unpack[MovieChanges],
) -> MovieRead:
    """Change fields of a movie and return it; see ``MovieRepository.update``."""

    def change() -> MovieRead:
        with writing(session) as connection:
            movie = lock_movie(connection, movie_id, precondition)
            if changes:
                movie = _update(connection, movie, **changes)
                after_commit(session, partial(log_event, "movie.updated", movie_id=movie_id))
        return movie

    return _unique(session, change, movie_id, **changes)


def insert_if_missing(connection: Connection, movie: NewMovie) -> bool:
    """Store a movie unless another one has its title or ids, and return whether it was stored.

    Raises:
        IdsExhausted: no id is left.
        ValueError: a value is out of its bounds.
    """
    columns = _columns_of_new(movie)
    # Checked first: even an insert that does nothing uses up an id.
    if _taken(connection, columns):
        return False
    insert = statements.INSERT_MOVIE_OR_IGNORE[connection.dialect.name]
    row = connection.execute(insert, columns).one_or_none()
    if row is not None:
        _complete(connection, MovieRead(*row))
    return row is not None


def _update(connection: Connection, movie: MovieRead, **changes: Unpack[MovieChanges]) -> MovieRead:
    if "genre" in changes and "genres" not in changes:
        changes["genres"] = [changes["genre"], *movie.genres[1:]]
    update = statements.UPDATE_MOVIE.values(_columns_of(**changes))
    changed = MovieRead(*connection.execute(update, {"this_movie": movie.id}).one())
    if "genres" in changes:  # even if they are equal: an older version stores no genre rows
        connection.execute(statements.DELETE_GENRES, {"this_movie": movie.id})
        _insert_genres(connection, changed)
    if "title" in changes:
        replace_words(connection, {movie.id: changed.title})
    return changed


def lock_movie(
    connection: Connection, movie_id: int, precondition: Precondition | None = None
) -> MovieRead:
    """Lock a movie until the transaction ends, and return it.

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
        columns |= title_columns(columns["title"])
    if "year" in columns:
        require_bounds("year", columns["year"], YEAR_MIN, YEAR_MAX)
    if columns.get("tmdb_id") is not None:
        require_bounds("tmdb_id", columns["tmdb_id"], 1, INTEGER_MAX)
    if "genres" in columns:
        columns |= genre_columns(normalize_genres(columns.pop("genres")))
    if columns.get("imdb_id") is not None:
        columns["imdb_id"] = normalize_imdb_id(columns["imdb_id"])
    return columns


def _complete(connection: Connection, movie: MovieRead) -> MovieRead:
    """Store the genres and words of a new movie and return it."""
    statements.require_id_in_range(movie.id)
    _insert_genres(connection, movie)
    insert_words(connection, {movie.id: movie.title})
    return movie


def _insert_genres(connection: Connection, movie: MovieRead) -> None:
    rows = [{"movie_id": movie.id, "genre": genre} for genre in movie.genres]
    connection.execute(statements.INSERT_GENRES, rows)


def _taken(connection: Connection, columns: dict[str, Any], movie_id: int = 0) -> str | None:
    """Return the first of a movie's title and ids that another movie has."""
    given = {f"new_{field}": columns.get(field) for field in statements.UNIQUE}
    rows = connection.execute(statements.HOLDERS, given | {"this_movie": movie_id}).mappings().all()
    for field in statements.UNIQUE:
        if columns.get(field) in {row[field] for row in rows} - {None}:
            return field
    return None

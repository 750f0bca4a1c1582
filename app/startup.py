"""What the service does when it starts: starter movies, and a line that says where to go."""

import logging

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.db import Database, database_error, explained_errors
from app.errors import PermissionMissing
from app.logs import log_event
from app.read_models import NewMovie
from app.repository import MovieRepository
from app.search.index import index_new_movies

STARTER_MOVIES = (
    NewMovie("Inception", 2010, "Sci-Fi", imdb_id="tt1375666", tmdb_id=27205),
    NewMovie("The Matrix", 1999, "Sci-Fi", imdb_id="tt0133093", tmdb_id=603),
    NewMovie("The Godfather", 1972, "Crime", imdb_id="tt0068646", tmdb_id=238),
    NewMovie("Spirited Away", 2001, "Animation", imdb_id="tt0245429", tmdb_id=129),
    NewMovie("Black Panther", 2018, "Action", imdb_id="tt1825683", tmdb_id=284054),
)


def start(database: Database, address: str | None, *, may_add_movies: bool) -> None:
    """Load the starter movies into an empty catalogue, index it, and log where the service is.

    Args:
        database: the open database.
        address: the URL that the server listens on, if known.
        may_add_movies: load the starter movies.

    Raises:
        SetupError: the database cannot be used.
    """
    with explained_errors(database.engine.url), database.session() as session:
        repository = MovieRepository(session)
        _index(session)
        movies = repository.list(limit=1).total
        if not movies and may_add_movies:
            repository.create_missing(STARTER_MOVIES)
            # Another worker may have stored them meanwhile.
            movies = repository.list(limit=1).total
    log_event(
        "service.started",
        page=address,
        docs=address and f"{address}docs",
        database=database.engine.url.render_as_string(),
        movies=movies,
    )


def _index(session: Session) -> None:
    """Index the movies that are not indexed. If the role may only read, searches do without."""
    try:
        indexed = index_new_movies(session)
    except DBAPIError as error:
        if not isinstance(meaning := database_error(error), PermissionMissing):
            raise
        log_event("movies.not_indexed", logging.WARNING, reason=str(meaning))
    else:
        if indexed:
            log_event("movies.indexed", count=indexed)

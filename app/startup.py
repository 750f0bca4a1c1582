"""Start-up: preparing the database, the starter movies, and readable start-up errors."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlmodel import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import Settings, load_settings
from app.db import create_db_engine
from app.db_errors import explain_read_only, readable_database_errors
from app.errors import SetupError
from app.migrate import file_exists, is_at_head, migrate_to_head, require_file, require_schema
from app.read_models import NewMovie
from app.repository import MovieRepository
from app.schema_check import schema_differences
from app.transactions import reading

STARTER_MOVIES = (
    NewMovie("Inception", 2010, "Sci-Fi", imdb_id="tt1375666", tmdb_id=27205),
    NewMovie("The Matrix", 1999, "Sci-Fi", imdb_id="tt0133093", tmdb_id=603),
    NewMovie("The Godfather", 1972, "Crime", imdb_id="tt0068646", tmdb_id=238),
    NewMovie("Spirited Away", 2001, "Animation", imdb_id="tt0245429", tmdb_id=129),
    NewMovie("Black Panther", 2018, "Action", imdb_id="tt1825683", tmdb_id=284054),
)


def init_db(settings: Settings, engine: Engine) -> None:
    """Prepare the database.

    With ``auto_setup``, bring the schema to head and load the starter movies into an empty
    catalogue. Without it, only check the schema.

    Raises:
        SetupError: the database cannot be used, or its schema does not fit the service.
    """
    _require_writable(engine.url)
    if settings.auto_setup and not is_at_head(engine):
        migrate_to_head(settings.database_url)
    require_file(engine.url)
    with readable_database_errors(engine.url):
        with engine.connect() as connection:
            require_schema(connection)
        if settings.auto_setup:
            with Session(engine) as session:
                repository = MovieRepository(session)
                if not repository.list(limit=1):
                    repository.create_missing(STARTER_MOVIES)


@contextmanager
def open_session(database_url: str | None = None) -> Iterator[Session]:
    """Yield a session for a command, by default on the configured database, with a schema at head.

    Raises:
        SetupError: there is no such database, or its schema does not fit the service.
    """
    engine = create_db_engine(database_url or load_settings().database_url)
    require_file(engine.url)
    try:
        with readable_database_errors(engine.url), Session(engine) as session:
            with reading(session) as connection:
                require_schema(connection)
            yield session
    finally:
        engine.dispose()


def problems_of(session: Session) -> Iterator[str]:
    """Yield what is wrong with a database's schema and data, a line each."""
    with reading(session) as connection:
        differences = schema_differences(connection)
    # The schema first: a column that is missing may be why the rest cannot be read.
    yield from differences
    yield from MovieRepository(session).problems()


def _require_writable(url: URL) -> None:
    if url.get_backend_name() != "sqlite" or not file_exists(url):
        return
    # SQLite would open it all the same and fail at the first write.
    if not os.access(str(url.database), os.W_OK):
        raise SetupError(explain_read_only(url.database))


def without_traceback(lifespan: ASGIApp) -> ASGIApp:
    """Return a lifespan that reports a SetupError by its message, without a traceback."""

    async def report(scope: Scope, receive: Receive, send: Send) -> None:
        async def shorten(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, SetupError):
                message["message"] = str(error)
            await send(message)

        await lifespan(scope, receive, shorten)

    return report

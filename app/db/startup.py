"""Prepares a database for the service, a command or course code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Engine, inspect
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session as AnySession
from sqlmodel import Session

from app.config import Settings, load_settings, stop
from app.db.engines import create_db_engine, create_service_engine
from app.db.errors import explain_read_only, explained_errors
from app.db.migrations import (
    file_exists,
    is_at_head,
    migrate,
    require_file,
    require_schema,
    upgrade_to_head,
)
from app.db.schema import describe, missing_sequences, schema_differences, sequences_behind
from app.db.stored_values import file_damage
from app.db.transactions import reading
from app.errors import SetupError

IN_MEMORY = (None, "", ":memory:")


def prepare(settings: Settings, engine: Engine) -> None:
    """Upgrade the schema to head; with ``auto_setup=False``, only check that it is there.

    Raises:
        SetupError: the database cannot be used, or the service cannot use its schema.
    """
    _require_writable(engine.url)
    if settings.auto_setup and not is_at_head(engine):
        migrate(settings.database_url)
    require_file(engine.url)
    with explained_errors(engine.url), engine.connect() as connection:
        require_schema(connection)


def prepare_foreign(engine: Engine) -> None:
    """Create the schema on an engine that replaces the service's, unless it has tables.

    Raises:
        SetupError: the database cannot be used.
    """
    with explained_errors(engine.url):
        if inspect(engine).get_table_names():
            return
        if engine.url.database not in IN_MEMORY:
            migrate(engine.url.render_as_string(hide_password=False))
        else:
            with engine.begin() as connection:
                upgrade_to_head(connection)


@cache
def configured_engine() -> Engine:
    """Return the engine of the environment's settings, which ``app.main.app`` uses."""
    try:
        return create_service_engine(load_settings())
    except SetupError as error:
        stop(str(error))


def replaced_engine() -> Engine | None:
    """Return the engine that course code assigned to ``app.db.engine``, if any."""
    assigned: Engine | None = vars(sys.modules["app.db"]).get("engine")
    return None if assigned is configured_engine() else assigned


def init_db() -> None:
    """Upgrade the schema of ``app.db.engine`` to head.

    Raises:
        SetupError: the database cannot be used.
    """
    prepare_foreign(replaced_engine() or configured_engine())


@contextmanager
def open_session(database_url: str | None = None) -> Iterator[Session]:
    """Yield a session for a command, by default on the configured database.

    Raises:
        SetupError: there is no such database, or the service cannot use its schema.
    """
    engine = create_db_engine(database_url or load_settings().database_url)
    require_file(engine.url)
    try:
        with explained_errors(engine.url), Session(engine) as session:
            with reading(session) as connection:
                require_schema(connection)
            yield session
    finally:
        engine.dispose()


def damage(session: AnySession) -> list[str]:
    """Return a line for each damaged part of a SQLite file."""
    with reading(session) as connection:
        return file_damage(connection)


def schema_problems(session: AnySession) -> list[str]:
    """Return a line for each difference between a database's schema and the models.

    A sequence of PostgreSQL that is missing or behind the ids of its table counts as one.
    """
    with reading(session) as connection:
        return [
            *schema_differences(connection),
            *missing_sequences(connection, describe(connection)),
            *sequences_behind(connection),
        ]


def _require_writable(url: URL) -> None:
    if url.get_backend_name() != "sqlite" or not file_exists(url):
        return
    # SQLite would open a read-only file, and fail at the first write.
    if not os.access(str(url.database), os.W_OK):
        raise SetupError(explain_read_only(url.database))

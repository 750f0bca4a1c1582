"""New databases of each engine, gone at their end.

PostgreSQL takes part if MOVIE_TEST_POSTGRES_URL names a server, whose user may create databases.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url

from app.db import create_db_engine, migrate

POSTGRES_URL = os.environ.get("MOVIE_TEST_POSTGRES_URL")
# How to run the tests that need a server; they say so when they are skipped.
SET_POSTGRES_URL = (
    "MOVIE_TEST_POSTGRES_URL=postgresql://postgres@127.0.0.1:5432/test CI=true uv run pytest"
)
needs_postgresql = pytest.mark.skipif(
    POSTGRES_URL is None, reason=f"needs PostgreSQL: {SET_POSTGRES_URL}"
)
ENGINES = ["sqlite", *(["postgresql"] if POSTGRES_URL else [])]


@contextmanager
def new_database(engine_name: str, folder: Path, *, migrated: bool = False) -> Iterator[str]:
    """Yield the URL of a new database: no file yet, or no tables.

    Args:
        engine_name: ``sqlite`` or ``postgresql``.
        folder: the folder of a SQLite file.
        migrated: bring its schema to head.
    """
    with new_postgresql() if engine_name == "postgresql" else _new_sqlite(folder) as url:
        if migrated:
            migrate(url)
        yield url


@contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Block all other writes, as a long transaction of another process does."""
    engine = create_db_engine(database_url)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("LOCK TABLE movie, rating IN SHARE MODE")
        else:
            connection.exec_driver_sql("UPDATE movie SET year = year")
        yield
        connection.rollback()
    engine.dispose()


@contextmanager
def new_postgresql(options: str = "") -> Iterator[str]:
    """Yield the URL of a PostgreSQL database that was created with these options."""
    assert POSTGRES_URL is not None
    server = make_url(POSTGRES_URL).set(drivername="postgresql+psycopg")
    administrator = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"movie_test_{uuid4().hex}"
    with administrator.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with administrator.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        administrator.dispose()


@contextmanager
def _new_sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / uuid4().hex}.db"

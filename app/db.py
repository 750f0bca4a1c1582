"""The database's engine, its sessions and its schema's revision. No queries of movies here."""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends, Request
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

from app.config import PROJECT_ROOT, Settings
from app.errors import SetupError
from app.repository import MovieRepository
from app.seed import STARTER_MOVIES

# Seconds that a worker which starts waits for another one's migration.
MIGRATION_TIMEOUT = 60.0
# SQLite answers a page in less time than a thread switch takes, and Python runs one thread at a
# time: a few threads serve more requests than many.
SQLITE_THREADS = 4
POSTGRESQL_THREADS = 16
# Any number, the same in every process that may migrate the same PostgreSQL database.
MIGRATION_LOCK = 7_305_812


def create_db_engine(database_url: str, *, busy_timeout: float = 5.0) -> Engine:
    """Return the engine of the service, with a connection for each worker thread.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        busy_timeout: seconds that SQLite waits for another process's write.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        # One connection more than threads: a session may be handed back after its thread.
        return _sqlite_engine(
            url,
            busy_timeout,
            foreign_keys=True,
            begin="BEGIN",
            pool_size=SQLITE_THREADS + 1,
        )
    return create_engine(url, pool_size=POSTGRESQL_THREADS + 1, pool_pre_ping=True)


def worker_threads(engine: Engine) -> int:
    """Return how many threads the service should answer requests with."""
    return SQLITE_THREADS if engine.dialect.name == "sqlite" else POSTGRESQL_THREADS


def _sqlite_engine(
    url: URL,
    busy_timeout: float,
    *,
    foreign_keys: bool,
    begin: str,
    **options: Any,  # noqa: ANN401 - create_engine's own
) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout}, **options)

    @event.listens_for(engine, "connect")
    def set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The driver's own transactions begin too late and end at DDL: SQLAlchemy begins them.
        connection.isolation_level = None
        cursor = connection.cursor()
        # Off by default in SQLite, and it cannot be changed inside a transaction.
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        # Readers and a writer do not wait for each other.
        cursor.execute("PRAGMA journal_mode=WAL")
        # An acknowledged write survives a power cut; NORMAL would lose the last ones.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # Past SQLAlchemy's bookkeeping for a statement, which costs more than a small read.
        connection.connection.cursor().execute(begin)

    return engine


async def get_session(request: Request) -> AsyncIterator[Session]:
    """Yield a session of the application's database.

    It is asynchronous so that it costs no thread: a repository's method ends its transaction
    before it returns, which leaves nothing to wait for here.
    """
    with Session(request.app.state.engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


@contextmanager
def migration_connection(database_url: str) -> Iterator[Connection]:
    """Yield a connection whose single transaction can hold any migration.

    All of it is committed at the end, or nothing. Others that want to migrate wait. On SQLite
    foreign keys are off, since recreating a table would delete the rows that refer to it; they
    are checked before the commit.

    Raises:
        SetupError: the database cannot be used, or a migration broke a foreign key.
    """
    url = make_url(database_url)
    with readable_database_errors(url):
        if url.get_backend_name() == "sqlite":
            engine = _sqlite_engine(
                url,
                MIGRATION_TIMEOUT,
                foreign_keys=False,
                begin="BEGIN IMMEDIATE",
                poolclass=NullPool,
            )
        else:
            engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(lock, {"key": MIGRATION_LOCK})
            yield connection
            if connection.dialect.name == "sqlite" and (
                orphans := connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            ):
                raise SetupError(
                    f"The migration would leave {len(orphans)} row(s) that refer to nothing. "
                    "It was rolled back."
                )


def upgrade_to_head(connection: Connection) -> None:
    """Bring the schema to head within the transaction of a migration_connection().

    Raises:
        SetupError: the database's revision is unknown here.
    """
    current_revision(connection)
    migrations = MigrationContext.configure(
        connection,
        # What alembic.command.upgrade() does, which would load env.py for it.
        opts={"fn": lambda current, _: _migrations()._upgrade_revs("head", current)},  # noqa: SLF001
    )
    with Operations.context(migrations):
        migrations.run_migrations()


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database's schema is at, None if it has no schema yet.

    Raises:
        SetupError: this version of the service does not know the revision.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _migrations().walk_revisions()}
    if current is not None and current not in known:
        raise SetupError(
            f"The database's schema is at revision {current}, which this version of the service "
            "does not know.\nIt comes from a newer version: run that one. Nothing was changed."
        )
    return current


def require_schema(connection: Connection) -> None:
    """Do nothing if the schema is the one that this version of the service needs.

    Raises:
        SetupError: it is not.
    """
    head = _migrations().get_current_head()
    current = current_revision(connection)
    if current != head:
        raise SetupError(
            f"The database's schema is at {current or 'no revision'}, the service needs {head}.\n"
            "Run: uv run alembic upgrade head"
        )


def require_file(url: URL) -> None:
    """Do nothing if there is a database to open, which SQLite would otherwise make.

    Raises:
        SetupError: there is no such file.
    """
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise SetupError(
            f"There is no database at {url.database}.\nRun: uv run python scripts/db.py migrate"
        )


@cache
def _migrations() -> ScriptDirectory:
    # By its absolute path, which works from any folder.
    return ScriptDirectory.from_config(Config(PROJECT_ROOT / "alembic.ini"))


@contextmanager
def readable_database_errors(url: URL) -> Iterator[None]:
    """Turn a driver's error into a SetupError that says what to do next."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise SetupError("PostgreSQL needs its driver. Run: uv sync --extra postgres") from error
    except sqlite3.Error as error:
        raise SetupError(_explain_sqlite(error, url.database)) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise SetupError(_explain_sqlite(error.orig, url.database)) from error
        reason = str(error.orig).strip().partition("\n")[0]
        raise SetupError(
            f"Cannot use the database {url.render_as_string()}: {reason}\n"
            "Check that the server runs and that MOVIE_DATABASE_URL is right."
        ) from error


def _explain_sqlite(error: sqlite3.Error, path: str | None) -> str:
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith("SQLITE_CANTOPEN"):
        return (
            f"Cannot open the database file {path}.\n"
            "Make its folder, or name another file in MOVIE_DATABASE_URL."
        )
    if code == "SQLITE_NOTADB":
        return (
            f"{path} is not a SQLite database. Nothing was changed.\n"
            "Name another file in MOVIE_DATABASE_URL."
        )
    if code.startswith("SQLITE_READONLY"):
        return (
            f"The database file {path} is read-only.\n"
            "Allow this user to write to it and to its folder."
        )
    if code.startswith("SQLITE_BUSY"):
        return f"Another process keeps {path} locked.\nTry again when it is done."
    return f"Cannot use the database file {path}: {error}."


def backup(database_url: str, target: Path) -> None:
    """Copy the SQLite database to a new file, as it was at one moment, while others use it.

    Raises:
        SetupError: the target exists or cannot be written, or the database is not SQLite's.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise SetupError("This copies SQLite files. For PostgreSQL, run pg_dump.")
    require_file(url)
    if target.exists():
        raise SetupError(f"{target} exists and is not overwritten.\nName another file.")
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent}.\nMake it, or name another file.")
    # Under another name until it is whole and on disk, which VACUUM INTO does not see to.
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        with readable_database_errors(url), closing(sqlite3.connect(str(url.database))) as source:
            source.execute("VACUUM INTO ?", (str(unfinished),))
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(target)
    except OSError as error:
        raise SetupError(f"Cannot write {target}: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def init_db(settings: Settings, engine: Engine) -> None:
    """Make the database ready for the service.

    With ``auto_setup`` it brings the schema to head and loads the starter movies into an empty
    catalogue. Without, it only looks at the schema.

    Raises:
        SetupError: the database cannot be used, or its schema does not fit the service.
    """
    if settings.auto_setup:
        with migration_connection(settings.database_url) as connection:
            upgrade_to_head(connection)
    require_file(engine.url)
    with readable_database_errors(engine.url):
        with engine.connect() as connection:
            require_schema(connection)
        if settings.auto_setup:
            with Session(engine) as session:
                repository = MovieRepository(session)
                if not repository.list(limit=1):
                    repository.create_missing(STARTER_MOVIES)

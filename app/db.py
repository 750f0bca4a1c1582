"""The database's engine, its sessions and its schema's revision. No queries of movies here."""

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends, Request
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session, SQLModel

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
# Threads that are left to reads while writers wait for locks in all others.
POSTGRESQL_READ_THREADS = 4
# Seconds that PostgreSQL gets to take up a connection: a host that is gone never answers.
CONNECT_TIMEOUT = 5
# Any number, the same in every process that may migrate the same PostgreSQL database.
MIGRATION_LOCK = 7_305_812


def create_db_engine(database_url: str, *, busy_timeout: float = 5.0) -> Engine:
    """Return the engine of the service, with a connection for each worker thread.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        busy_timeout: seconds that a statement waits for another writer's lock.
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
    # PostgreSQL takes 0 for no limit.
    lock_timeout = max(1, round(busy_timeout * 1000))
    return _postgresql_engine(
        url,
        options=f"-c lock_timeout={lock_timeout}",
        pool_size=POSTGRESQL_THREADS + 1,
        pool_pre_ping=True,
    )


def worker_threads(engine: Engine) -> int:
    """Return how many threads the service should answer requests with."""
    return SQLITE_THREADS if engine.dialect.name == "sqlite" else POSTGRESQL_THREADS


def concurrent_writers(engine: Engine) -> int:
    """Return how many requests may write at a time, so that they leave threads to reads."""
    if engine.dialect.name == "sqlite":
        return 1
    return POSTGRESQL_THREADS - POSTGRESQL_READ_THREADS


def _postgresql_engine(
    url: URL,
    *,
    options: str = "",
    **engine_options: Any,  # noqa: ANN401 - create_engine's own
) -> Engine:
    arguments = {"connect_timeout": CONNECT_TIMEOUT, "options": options}
    # What the URL says of the connection holds.
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    with readable_database_errors(url):
        return create_engine(url, connect_args=arguments, **engine_options)


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
        _use_wal(cursor, busy_timeout)
        # An acknowledged write survives a power cut; NORMAL would lose the last ones.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # Past SQLAlchemy's bookkeeping for a statement, which costs more than a small read.
        connection.connection.cursor().execute(begin)

    return engine


def _use_wal(cursor: DBAPICursor, busy_timeout: float) -> None:
    """Switch a file to WAL, which does not wait by itself while another process has a lock."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


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
            engine = _postgresql_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(lock, {"key": MIGRATION_LOCK})
            revision = _revision(connection)
            yield connection
            if connection.dialect.name == "sqlite" and _revision(connection) != revision:
                _refuse_orphans(connection)


def _refuse_orphans(connection: Connection) -> None:
    if orphans := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        raise SetupError(
            f"The migration would leave {len(orphans)} row(s) that refer to nothing. "
            "It was rolled back.\nRun: uv run python scripts/db.py check"
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
        opts={
            "fn": lambda current, _: _migrations()._upgrade_revs("head", current),  # noqa: SLF001
            # Names constraints as alembic's own commands do, see migrations/env.py.
            "target_metadata": SQLModel.metadata,
        },
    )
    with Operations.context(migrations):
        migrations.run_migrations()


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database's schema is at, None if it has no schema yet.

    Raises:
        SetupError: this version of the service does not know the revision.
    """
    current = _revision(connection)
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


def _require_writable(url: URL) -> None:
    path = Path(str(url.database))
    # SQLite itself would begin a transaction all the same and fail at its first write.
    if url.get_backend_name() == "sqlite" and path.exists() and not os.access(path, os.W_OK):
        raise SetupError(_read_only(str(path)))


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


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
        if not isinstance(error, OperationalError):
            raise SetupError(
                f"The database refused a statement: {reason}.\nNothing was changed."
            ) from error
        raise SetupError(
            f"Cannot use the database {url.render_as_string()}: {reason}\n"
            "Check that the server runs and that MOVIE_DATABASE_URL is right."
        ) from error


def _read_only(path: str | None) -> str:
    return (
        f"The database file {path} is read-only.\nAllow this user to write to it and to its folder."
    )


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
        return _read_only(path)
    if code.startswith("SQLITE_BUSY"):
        return f"Another process keeps {path} locked.\nTry again when it is done."
    return f"The database {path} refused a statement: {error}.\nNothing was changed."


def backup(database_url: str, target: Path) -> None:
    """Copy the SQLite database to a new file, as it was at one moment, while others use it.

    Raises:
        SetupError: the target exists or cannot be written, or the database is not SQLite's.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise SetupError("This copies SQLite files. For PostgreSQL, run pg_dump.")
    require_file(url)
    exists = SetupError(f"{target} exists and is not overwritten.\nName another file.")
    if target.exists():
        raise exists
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent}.\nMake it, or name another file.")
    try:
        # In a folder of its own until it is whole and on disk, which VACUUM INTO does not see to.
        with TemporaryDirectory(prefix=f"{target.name}.unfinished-", dir=target.parent) as folder:
            unfinished = Path(folder) / target.name
            with (
                readable_database_errors(url),
                closing(sqlite3.connect(str(url.database))) as source,
            ):
                source.execute("VACUUM INTO ?", (str(unfinished),))
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            # Fails where a rename would overwrite what has come there in the meantime.
            target.hardlink_to(unfinished)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise SetupError(f"Cannot write {target}: {error.strerror}.") from error


def init_db(settings: Settings, engine: Engine) -> None:
    """Make the database ready for the service.

    With ``auto_setup`` it brings the schema to head and loads the starter movies into an empty
    catalogue. Without, it only looks at the schema.

    Raises:
        SetupError: the database cannot be used, or its schema does not fit the service.
    """
    _require_writable(engine.url)
    if settings.auto_setup and not _is_at_head(engine):
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


def _is_at_head(engine: Engine) -> bool:
    """Tell without waiting for writers, who can keep a database for long."""
    with readable_database_errors(engine.url), engine.connect() as connection:
        return current_revision(connection) == _migrations().get_current_head()

"""Engines: how connections are opened, pooled and set up, and how a transaction begins."""

import sqlite3
import time
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import Settings
from app.db.errors import explained_errors, is_busy, is_read_only
from app.limits import Limits

# More than the service's threads: commands and tests borrow connections too.
SQLITE_POOL = 12
POSTGRESQL_POOL = 16
# Seconds after which a PostgreSQL connection is replaced: with several hosts in the URL, a better
# one, such as a recovered replica, may be available by then.
CONNECTION_LIFETIME = 300
# Seconds that a starting worker waits for another worker's migration.
MIGRATION_TIMEOUT = 60.0
DEFAULT_LIMITS = Limits()
# Key of a connection's info: whether a pooler such as PgBouncer answers for PostgreSQL.
_IS_POOLED = "movie_service.is_pooled"


def create_db_engine(
    database_url: str,
    *,
    busy_timeout: float = 5.0,
    limits: Limits = DEFAULT_LIMITS,
    is_impatient: bool = False,
) -> Engine:
    """Return the engine of the service, with a connection for each worker thread.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        busy_timeout: seconds that a statement waits for another writer's lock.
        limits: how long to wait for PostgreSQL, and the size of SQLite's -wal.
        is_impatient: close a connection to PostgreSQL whose server does not respond in time.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(
            url,
            busy_timeout,
            foreign_keys=True,
            begin="BEGIN",
            wal_bytes=limits.wal_bytes,
            pool_size=SQLITE_POOL,
        )
    engine = _postgresql_engine(
        url,
        busy_timeout,
        limits.connect_timeout,
        pool_size=POSTGRESQL_POOL,
        pool_pre_ping=True,
        pool_timeout=busy_timeout,
        pool_recycle=CONNECTION_LIFETIME,
    )
    if is_impatient:
        _limit_waits(engine, busy_timeout + limits.connect_timeout, limits.ping_timeout)
    return engine


def create_service_engine(
    settings: Settings, limits: Limits = DEFAULT_LIMITS, database_url: str | None = None
) -> Engine:
    """Return an engine with the time limits of the settings.

    Args:
        settings: name the database, unless another one is given.
        limits: how long to wait for PostgreSQL.
        database_url: another database.

    Raises:
        SetupError: PostgreSQL's driver is missing.
    """
    return create_db_engine(
        database_url or settings.database_url,
        busy_timeout=settings.busy_timeout,
        limits=limits,
        is_impatient=True,
    )


def create_migration_engine(
    database_url: str, *, lock_timeout: float = MIGRATION_TIMEOUT
) -> Engine:
    """Return an engine whose transactions can hold any migration.

    On SQLite a transaction takes the write lock when it begins, and foreign keys are off:
    recreating a table would otherwise delete the rows that refer to it.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        lock_timeout: seconds that a transaction waits for another one's lock.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        begin = "BEGIN IMMEDIATE"
        return _sqlite_engine(
            url, lock_timeout, foreign_keys=False, begin=begin, poolclass=NullPool
        )
    return _postgresql_engine(url, lock_timeout, DEFAULT_LIMITS.connect_timeout, poolclass=NullPool)


def _postgresql_engine(
    url: URL,
    lock_timeout: float,
    connect_timeout: int,
    **options: Any,  # noqa: ANN401 - create_engine's
) -> Engine:
    arguments = {"connect_timeout": connect_timeout, "client_encoding": "utf8"}
    # Options in the URL take precedence.
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    with explained_errors(url):
        engine = create_engine(url, connect_args=arguments, **options)
    # Not a start-up option: options in the URL would replace it.
    milliseconds = max(1, round(lock_timeout * 1000))  # PostgreSQL takes 0 for no limit
    limit = f"lock_timeout = {milliseconds}"

    @event.listens_for(engine, "connect")
    def set_up(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        driver: Any = connection
        driver.autocommit = True
        with driver.cursor() as cursor:
            [backend] = cursor.execute("SELECT pg_backend_pid()").fetchone()
            # A pooler in transaction mode may run each transaction on another server connection:
            # settings and prepared statements of the session would be lost, and disturb others.
            entry.info[_IS_POOLED] = driver.info.backend_pid != backend
            if entry.info[_IS_POOLED]:
                driver.prepare_threshold = None
            else:
                cursor.execute(f"SET {limit}")
        driver.autocommit = False

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        if connection.info[_IS_POOLED]:
            connection.exec_driver_sql(f"SET LOCAL {limit}")

    @event.listens_for(engine, "handle_error")
    def leave_pool(context: ExceptionContext) -> None:
        # A demoted primary keeps its connections open: reconnect to find the new one.
        if is_read_only(context.sqlalchemy_exception):
            context.is_disconnect = True

    return engine


def _limit_waits(engine: Engine, answer_timeout: float, ping_timeout: float) -> None:
    """Close a connection whose server does not respond in time.

    A stopped server, or a network that drops packets, would otherwise block a thread until TCP
    gives up. PostgreSQL's ``statement_timeout`` cannot help: a stopped server does not enforce it,
    and a commit that it interrupts would count as done before replicas have it.
    """
    psycopg = engine.dialect.loaded_dbapi

    class ImpatientConnection(psycopg.Connection):  # type: ignore[name-defined, misc] # loaded by name
        def wait(self, generator: Any, **options: Any) -> Any:  # noqa: ANN401 - the driver's signature
            # SQLAlchemy's pings and the set-up of a connection run in autocommit mode.
            limit = ping_timeout if self.autocommit else answer_timeout
            try:
                return super().wait(generator, **{"timeout": limit, **options})
            except psycopg.errors._WaitTimeout:  # noqa: SLF001 - the driver has no public name for it
                self.pgconn.finish()
                message = f"the server has not answered for {limit:g} s"
                raise psycopg.OperationalError(message) from None

    # Not a "do_connect" listener: SQLAlchemy calls only the first one.
    engine.dialect.connect = ImpatientConnection.connect  # type: ignore[method-assign] # same signature


def _sqlite_engine(
    url: URL,
    busy_timeout: float,
    *,
    foreign_keys: bool,
    begin: str,
    wal_bytes: int = DEFAULT_LIMITS.wal_bytes,
    **options: Any,  # noqa: ANN401 - create_engine's
) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout}, **options)

    @event.listens_for(engine, "connect")
    def set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The driver would begin transactions too late and end them at DDL: SQLAlchemy begins them.
        connection.isolation_level = None
        cursor = connection.cursor()
        # Off by default in SQLite, and a no-op inside a transaction.
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in cursor.fetchall()}
        # The mode is written into the file: leave another program's database unchanged.
        if not tables or "alembic_version" in tables:
            # Readers and a writer do not block each other.
            _use_wal(cursor, busy_timeout)
        # NORMAL would lose the last acknowledged commits on a power cut.
        cursor.execute("PRAGMA synchronous=FULL")
        # In KiB: four times the default, which sorting a thousand movies or a search exceeds.
        cursor.execute("PRAGMA cache_size=-8192")
        cursor.execute(f"PRAGMA journal_size_limit={wal_bytes}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # Directly on the driver: SQLAlchemy's overhead per statement exceeds a small read.
        driver: Any = connection.connection.driver_connection
        driver.execute(begin)

    return engine


def empty_wal(engine: Engine) -> None:
    """Truncate the -wal file after a large transaction, unless a reader still needs it."""
    if engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _use_wal(cursor: DBAPICursor, busy_timeout: float) -> None:
    """Switch a file to WAL, retrying while it is locked: this pragma ignores the busy timeout."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return

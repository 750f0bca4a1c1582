"""The database's engines: connections, pools and how a transaction begins. No queries here."""

import sqlite3
import time
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry

from app.db_errors import is_busy, readable_database_errors

# SQLite answers a page in less time than a thread switch takes, and Python runs one thread at a
# time: a few threads serve more requests than many.
SQLITE_THREADS = 4
POSTGRESQL_THREADS = 16
# Threads that are left to reads while writers wait for locks in all others.
POSTGRESQL_READ_THREADS = 4
# Bytes that SQLite's -wal keeps when it starts again at its beginning, once a long reader that
# made it grow has left. It grows to 4 MB anyway.
WAL_BYTES = 64 * 2**20
# Seconds that PostgreSQL gets to take up a connection: a host that is gone never answers.
CONNECT_TIMEOUT = 5
# Key of a connection's info: whether a pooler stands between it and PostgreSQL.
_IS_POOLED = "movie_service.is_pooled"


def create_db_engine(database_url: str, *, busy_timeout: float = 5.0) -> Engine:
    """Return the engine of the service, with a connection for each worker thread.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        busy_timeout: seconds that a statement waits for another writer's lock.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(
            url,
            busy_timeout,
            foreign_keys=True,
            begin="BEGIN",
            pool_size=2 * SQLITE_THREADS + 2,
        )
    return _postgresql_engine(url, busy_timeout, pool_size=POSTGRESQL_THREADS, pool_pre_ping=True)


def create_migration_engine(database_url: str, *, lock_timeout: float) -> Engine:
    """Return an engine whose transactions hold any migration; each has a connection of its own.

    On SQLite foreign keys are off, since recreating a table would delete the rows that refer to
    it, and a transaction takes the lock when it begins.

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
    return _postgresql_engine(url, lock_timeout, poolclass=NullPool)


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
    lock_timeout: float,
    **options: Any,  # noqa: ANN401 - create_engine's own
) -> Engine:
    arguments = {"connect_timeout": CONNECT_TIMEOUT, "client_encoding": "utf8"}
    # What the URL says of the connection holds.
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    with readable_database_errors(url):
        engine = create_engine(url, connect_args=arguments, **options)
    # Not in the start-up packet, where the URL's own options would replace it.
    milliseconds = max(1, round(lock_timeout * 1000))  # PostgreSQL takes 0 for no limit
    limit = f"lock_timeout = {milliseconds}"

    @event.listens_for(engine, "connect")
    def set_up(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        driver: Any = connection
        driver.autocommit = True
        with driver.cursor() as cursor:
            [backend] = cursor.execute("SELECT pg_backend_pid()").fetchone()
            # A pooler such as PgBouncer answers for the server, and in its transaction mode each
            # transaction may run on another of the server's connections: what outlives one would
            # be missing there, and disturb others.
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

    return engine


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
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in cursor.fetchall()}
        # Another program's file stays as it is, which the mode would be written into.
        if not tables or "alembic_version" in tables:
            # Readers and a writer do not wait for each other.
            _use_wal(cursor, busy_timeout)
        # An acknowledged write survives a power cut; NORMAL would lose the last ones.
        cursor.execute("PRAGMA synchronous=FULL")
        # In KiB: four times the default, which sorting a thousand movies or a search outgrows.
        cursor.execute("PRAGMA cache_size=-8192")
        cursor.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # Past SQLAlchemy's bookkeeping for a statement, which costs more than a small read.
        driver: Any = connection.connection.driver_connection
        driver.execute(begin)

    return engine


def empty_wal(engine: Engine) -> None:
    """Give back the disk that a large transaction has taken, unless a reader still needs it."""
    if engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _use_wal(cursor: DBAPICursor, busy_timeout: float) -> None:
    """Switch a file to WAL, which does not wait by itself while another process has a lock."""
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

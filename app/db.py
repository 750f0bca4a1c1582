"""The database's engines: connections, pools and how a transaction begins. No queries here."""

import sqlite3
import time
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from app.db_errors import is_busy, is_read_only, readable_database_errors

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
# Seconds after which a connection is made anew: a URL of several hosts may lead to a better one,
# such as a replica that is back.
CONNECTION_LIFETIME = 300
# Seconds that PostgreSQL gets to say that a connection of the pool still works.
PING_TIMEOUT = 2
# Key of a connection's info: whether a pooler stands between it and PostgreSQL.
_IS_POOLED = "movie_service.is_pooled"


def create_db_engine(
    database_url: str, *, busy_timeout: float = 5.0, answer_timeout: float | None = None
) -> Engine:
    """Return the engine of the service, with a connection for each worker thread.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        busy_timeout: seconds that a statement waits for another writer's lock.
        answer_timeout: seconds after which a PostgreSQL server that does not answer a statement is
            taken for hung, and its connection closed.
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
    engine = _postgresql_engine(
        url,
        busy_timeout,
        pool_size=POSTGRESQL_THREADS,
        pool_pre_ping=True,
        pool_timeout=busy_timeout,
        pool_recycle=CONNECTION_LIFETIME,
    )
    if answer_timeout is not None:
        _limit_waits(engine, answer_timeout)
    return engine


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

    @event.listens_for(engine, "handle_error")
    def leave_pool(context: ExceptionContext) -> None:
        # A primary that was demoted keeps its connections: others lead to the new one.
        if is_read_only(context.sqlalchemy_exception):
            context.is_disconnect = True

    return engine


def _limit_waits(engine: Engine, answer_timeout: float) -> None:
    """Close a connection whose server does not answer in time.

    A server that is stopped, or behind a network that drops packets, would keep a thread waiting
    for as long as TCP likes. PostgreSQL's ``statement_timeout`` is no substitute: that server
    cannot keep it, and a commit that it cuts short would count as done before replicas have it.
    """
    psycopg = engine.dialect.loaded_dbapi

    class ImpatientConnection(psycopg.Connection):  # type: ignore[name-defined, misc] # loaded by name
        def wait(self, generator: Any, **options: Any) -> Any:  # noqa: ANN401 - as the driver's own
            # SQLAlchemy's pings, and the set-up of a connection, are in this mode.
            limit = PING_TIMEOUT if self.autocommit else answer_timeout
            try:
                return super().wait(generator, **{"timeout": limit, **options})
            except psycopg.errors._WaitTimeout:  # noqa: SLF001 - the driver has no other name for it
                self.pgconn.finish()
                message = f"the server has not answered for {limit:g} s"
                raise psycopg.OperationalError(message) from None

    # Not by a listener of "do_connect": a second one would not be asked.
    engine.dialect.connect = ImpatientConnection.connect  # type: ignore[method-assign] # has its signature


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

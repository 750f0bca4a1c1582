"""The connections that the service keeps to a SQLite database, one for each of its threads.

Opening and closing a session's transaction costs five times what reading a row by its key does:
the bench's baseline shows that textbook form. A kept connection begins and ends with a statement
of the driver's.

A read costs less than a change of threads, so it starts on the event loop. There it may not wait:
past a deadline, or where another process has locked the database, it is interrupted, and the
route class repeats it in a worker thread.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine

from app.database_file import DatabaseFile

# Seconds that a read may take on the event loop, and after how many of SQLite's steps to look at
# the clock: some 20 microseconds.
DEADLINE = 0.003
STEPS = 2000
NEVER = float("inf")


class _Lease:
    """Holds a connection for a thread, and gives it back to the engine's pool when that ends.

    A connection and its transaction refer to each other, so that the thread's end alone would
    leave it to the garbage collector. Until that came, threads could use up the pool.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __del__(self) -> None:
        self._connection.close()


@contextmanager
def kept_connections(
    engine: Engine, busy_timeout: float, file: DatabaseFile | None
) -> Iterator["KeptConnections | None"]:
    """Yield the connections to a SQLite database, and close them at the end; None for another."""
    if engine.dialect.name != "sqlite":
        yield None
        return
    kept = KeptConnections(engine, busy_timeout, WeakSet(), file)
    try:
        # To open a connection can take as long as others lock the database.
        with kept.deadline(), kept.reading():
            pass
        yield kept
    finally:
        kept.close()


class KeptConnections(threading.local):
    """The connection that the current thread keeps, opened when it is first asked for.

    A thread that ends gives its connection back to the engine's pool.
    """

    def __init__(
        self,
        engine: Engine,
        busy_timeout: float,
        opened: WeakSet[Connection],
        file: DatabaseFile | None = None,
    ) -> None:
        """Do what is done once for each thread.

        Args:
            engine: where the connections come from.
            busy_timeout: seconds that a worker thread waits for another process's lock.
            opened: holds the connections of all threads.
            file: what they are connected to, to be checked in each transaction.
        """
        self._engine = engine
        self._busy_timeout = busy_timeout
        self._file = file
        self._opened = opened
        self._connection: Connection | None = None
        self._lease: _Lease | None = None
        self._driver: Any = None
        self._deadline = NEVER
        # The deadline while a statement of a read may be interrupted, not its BEGIN or ROLLBACK.
        self._interrupt_after = NEVER

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Interrupt what this thread reads inside if it takes too long or meets a lock."""
        self._deadline = perf_counter() + DEADLINE
        try:
            yield
        finally:
            self._deadline = NEVER

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that shows the database as of one moment."""
        connection = self._open()
        # Past SQLAlchemy's bookkeeping for a statement, which costs more than a small read.
        self._driver.execute("BEGIN")
        self._interrupt_after = self._deadline
        try:
            yield connection
        finally:
            self._interrupt_after = NEVER
            self._end()
            if self._file is not None:
                self._file.check()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection that holds the write lock, and commit unless it raises."""
        connection = self._open()
        if self._file is not None:
            self._file.check()
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.exec_driver_sql("COMMIT")
        finally:
            self._end()
            if self._file is not None:
                self._file.check_all()

    def close(self) -> None:
        """Close the connections of all threads. They must be idle."""
        for connection in [*self._opened]:
            connection.close()

    def _end(self) -> None:
        # After some errors, such as a full or broken disk, SQLite has rolled back by itself.
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")

    def _open(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = self._engine.connect()
        # SQLAlchemy begins once and for all, so that it does nothing at either end of a
        # transaction of the driver's.
        connection.begin()
        self._driver = connection.connection.driver_connection
        self._driver.execute("ROLLBACK")
        # The pool may hand out a connection that a thread of the other kind has used.
        on_event_loop = self._deadline != NEVER
        wait = 0 if on_event_loop else round(self._busy_timeout * 1000)
        self._driver.execute(f"PRAGMA busy_timeout={wait}")
        self._driver.set_progress_handler(self._is_late if on_event_loop else None, STEPS)
        self._connection = connection
        self._lease = _Lease(connection)
        self._opened.add(connection)
        return connection

    def _is_late(self) -> bool:
        return perf_counter() > self._interrupt_after

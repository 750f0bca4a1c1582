"""The service's database: opened and closed once, read and written by every request."""

import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import ExitStack, asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import anyio
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.client import is_disconnected
from app.config import Settings
from app.db.engines import create_service_engine
from app.db.errors import database_error, is_deadlock, is_interrupted
from app.db.file_guard import DatabaseFile, guarded
from app.db.lanes import Lane
from app.db.migrations import require_permissions, require_schema
from app.db.schema import Schema, describe, describe_models, differences, require_complete
from app.db.startup import configured_engine, prepare, prepare_foreign, replaced_engine
from app.db.transactions import Deadline, KeptConnections, ServiceSession, reading
from app.errors import ClientDisconnected, DatabaseError, PermissionMissing
from app.limits import Limits

if TYPE_CHECKING:
    from app.observer import Observer

T = TypeVar("T")

# SQLite reads a page in less time than a thread switch takes, and Python runs one thread at a time:
# few threads serve more requests than many. It allows one writer.
SQLITE_READERS, SQLITE_WRITERS = 4, 1
POSTGRESQL_READERS, POSTGRESQL_WRITERS = 8, 8
# One download at a time is read and encoded: a slow client blocks none, and the interpreter's lock
# is shared with few threads.
STREAMS = 1
# How many times a read's deadline reads stay off the event loop after one exceeded it.
PAUSE = 10


class Database:
    """The database of an application.

    Attributes:
        engine: its connections.
        observer: is notified of requests, reads and writes; None if nothing measures them.
    """

    def __init__(self, settings: Settings, limits: Limits, *, is_configured: bool = False) -> None:
        """Open nothing yet.

        Args:
            settings: name the database.
            limits: how long to wait.
            is_configured: the settings are those of the environment, so ``app.db.engine`` is the
                engine, and may be replaced.

        Raises:
            SetupError: PostgreSQL's driver is missing.
        """
        self.engine = (
            configured_engine() if is_configured else create_service_engine(settings, limits)
        )
        self.observer: Observer | None = None
        self._settings = settings
        self._is_configured = is_configured
        # Namespace of app.db, where course code may replace `engine`.
        self._names = vars(sys.modules["app.db"])
        self._file: DatabaseFile | None = None
        self._connections: KeptConnections | None = None
        # The schema that the models create on this engine, once it is known.
        self._models: Schema | None = None
        self._deadline = Deadline()
        self._resume_at = 0.0
        self._limits = limits
        is_sqlite = self.engine.dialect.name == "sqlite"
        self._readers = SQLITE_READERS if is_sqlite else POSTGRESQL_READERS
        writers = SQLITE_WRITERS if is_sqlite else POSTGRESQL_WRITERS
        self._reads = Lane(
            "read",
            self._readers,
            None if is_sqlite else limits.read_timeout,
            max_waiting=limits.waiting_reads,
        )
        self._writes = Lane("write", writers, settings.busy_timeout, on_waiting=self._count_waiting)
        self._streams = Lane("stream", STREAMS, gives_way_to=self._writes)
        self._probes = Lane("probe", 1)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Prepare the schema, keep connections open inside, and close everything at the end.

        Raises:
            SetupError: the database cannot be used, or its schema does not fit the service.
        """
        # Sync routes run in these threads: allow one per reader connection.
        anyio.to_thread.current_default_thread_limiter().total_tokens = self._readers
        with ExitStack() as opened:
            opened.callback(self._forget)
            if (replaced := self._replacement()) is not None:
                await anyio.to_thread.run_sync(prepare_foreign, replaced)
            else:
                await anyio.to_thread.run_sync(prepare, self._settings, self.engine)
                self._file = opened.enter_context(
                    guarded(self.engine, self._limits.file_check_interval)
                )
                if self.engine.dialect.name == "sqlite":
                    self._connections = self._connect()
                    opened.callback(self._connections.close)
            opened.callback(self._end_threads)
            yield

    @property
    def is_replaced(self) -> bool:
        """Return whether ``app.db.engine`` was replaced."""
        return self._replacement() is not None

    def session(self) -> Session:
        """Return a session of this database.

        Closing it is optional: each method of the repository ends its transaction, which returns
        the connection.
        """
        engine = self._names.get("engine", self.engine) if self._is_configured else self.engine
        if self._connections is None or engine is not self.engine:
            return Session(engine)
        session = ServiceSession(self.engine)
        session.connections = self._connections
        return session

    async def read(self, function: Callable[[], T]) -> T:
        """Return the result of a function that reads, and may be called twice.

        On SQLite it runs on the event loop. If it exceeds the deadline or meets a lock it is
        interrupted, and runs again in a worker thread; reads that follow within a short pause go to
        a worker thread directly, so slow reads never occupy the event loop for long. On PostgreSQL
        every read runs in a worker thread.

        Raises:
            DatabaseBusy: too many reads wait for a thread, or on PostgreSQL none became free in
                time.
            ClientDisconnected: the client disconnected before the read's turn came.
        """
        if is_disconnected():
            raise ClientDisconnected
        if self._connections is not None and perf_counter() > self._resume_at:
            self._deadline.at = perf_counter() + self._limits.read_deadline
            try:
                return function()
            except Exception as error:
                if not is_interrupted(error):
                    raise
            finally:
                self._deadline.at = None
            self._resume_at = perf_counter() + PAUSE * self._limits.read_deadline
            if self.observer is not None:
                self.observer.read_interrupted()
        return await self._reads.run(function)

    async def read_in_thread(self, function: Callable[[], T]) -> T:
        """Return the result of a function that reads, usually for longer than the deadline."""
        return await self._reads.run(function)

    async def stream(self, function: Callable[[], T]) -> T:
        """Return the result of a function that reads a part of a long response."""
        return await self._streams.run(function)

    async def write(self, function: Callable[[], T], *, requests: int = 1) -> T:
        """Return the result of a function that writes. Writes run in FIFO order.

        A writer that waits for a lock would occupy a thread that others could use. SQLite allows
        one writer at a time anyway, and polls for its lock. After a deadlock the function is called
        once more: the other transaction goes on, so it finds the locks free or waits.

        Args:
            function: called in a worker thread.
            requests: number of requests to count as waiting.

        Raises:
            DatabaseBusy: its turn did not come within the setting ``busy_timeout``.
        """
        try:
            return await self._writes.run(function, requests)
        except Exception as error:
            if not is_deadlock(error):
                raise
        return await self._writes.run(function, requests)

    async def ready(self) -> list[str]:
        """Check, without waiting for other requests, that the service can serve.

        Returns:
            A line for each constraint, index or type that differs from the models: the service
            works without.

        Raises:
            SetupError: the database's schema is another one.
            PermissionMissing: PostgreSQL's role may not write.
        """
        return await self._probes.run(self.check)

    def check(self) -> list[str]:
        """Check that the database answers, has the schema of this version and may be written to.

        Returns:
            A line for each constraint, index or type that differs from the models: the service
            works without.

        Raises:
            SetupError: its schema is another one.
            PermissionMissing: PostgreSQL's role may not write.
        """
        with self.session() as session, reading(session) as connection:
            require_schema(connection)
            stored = describe(connection)
            require_complete(connection, stored)
            require_permissions(connection)
            if self._models is None:
                try:
                    self._models = describe_models(connection)
                except DBAPIError as error:
                    # PostgreSQL's role may be forbidden to make the temporary tables for this.
                    if not isinstance(database_error(error), PermissionMissing):
                        raise
                    return []
            return differences(stored, self._models)

    def version(self) -> Hashable | None:
        """Return a value that changes with every commit by any process, None if it is unknown.

        It is known on SQLite while the database is open, and takes microseconds.
        """
        if self._file is None or self.is_replaced:
            return None
        try:
            self._file.check()
            row = self._file.connection.execute("PRAGMA data_version").fetchone()
        except (DatabaseError, sqlite3.Error):
            return None
        return self._file, row[0]

    def _connect(self) -> KeptConnections:
        connections = KeptConnections(
            self.engine,
            self._settings.busy_timeout,
            self._file,
            self._deadline,
            self._limits.read_steps,
        )
        # Connect now: otherwise the first request could wait for another process's lock.
        connections.connect()
        return connections

    def _replacement(self) -> Engine | None:
        return replaced_engine() if self._is_configured else None

    def _count_waiting(self, change: int) -> None:
        if self.observer is not None:
            self.observer.waiting_writers_changed(change)

    def _end_threads(self) -> None:
        for lane in (self._reads, self._writes, self._streams, self._probes):
            lane.close()

    def _forget(self) -> None:
        self._file = self._connections = None
        self.engine.dispose()

"""Transactions: ``reading()`` and ``writing()``, which alone begin, commit and roll back.

They nest, so that domain verbs compose::

    with writing(session):
        movie = repository.create(title="Heat", year=1995)
        repository.add_rating(movie.id, score=5)  # both are stored, or neither

The service's sessions on SQLite run them on connections that stay open: beginning and ending a
transaction through a Session costs five times what reading a row by its key does. All other
sessions, such as one in a notebook, are the concern of callers_session.py.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any, Literal

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session as AnySession
from sqlmodel import Session

from app.db import callers_session
from app.db.file_guard import DatabaseFile

Action = Callable[[], object]

_NEVER = float("inf")


class Deadline(threading.local):
    """When reads of the current thread are interrupted.

    Attributes:
        at: on the clock of perf_counter(); None while the thread may block.
    """

    at: float | None = None


class KeptConnection:
    """A connection that stays open inside one SQLAlchemy transaction, which never ends.

    BEGIN and COMMIT are plain driver statements, so SQLAlchemy adds no cost to them.
    """

    def __init__(self, engine: Engine, wait: float, steps: int | None) -> None:
        """Connect.

        Args:
            engine: where the connection comes from.
            wait: seconds to wait for another process's lock.
            steps: the number of SQLite's steps between two checks of the deadline, None if reads
                on this connection have none.
        """
        self.connection = engine.connect()
        self.connection.begin()
        driver: Any = self.connection.connection.driver_connection
        self.driver = driver
        self.driver.execute("ROLLBACK")
        self.driver.execute(f"PRAGMA busy_timeout={round(wait * 1000)}")
        self.driver.set_progress_handler(None if steps is None else self._is_late, steps or 0)
        # Infinite during BEGIN and ROLLBACK, which must not be interrupted.
        self.interrupt_after = _NEVER

    def end(self) -> None:
        """Roll back, unless the transaction has ended."""
        self.interrupt_after = _NEVER
        # After some errors, such as a full disk, SQLite has rolled back already.
        if self.driver.in_transaction:
            self.driver.execute("ROLLBACK")

    def _is_late(self) -> bool:
        return perf_counter() > self.interrupt_after


class KeptConnections:
    """The open connections of a service to its SQLite database.

    A read costs less than a change of threads, so it starts on the event loop. It must not block
    there: if it exceeds the deadline or meets a lock it is interrupted, and repeated in a worker
    thread.
    """

    def __init__(
        self,
        engine: Engine,
        busy_timeout: float,
        file: DatabaseFile | None,
        deadline: Deadline,
        steps: int,
    ) -> None:
        """Open no connection yet.

        Args:
            engine: where the connections come from.
            busy_timeout: seconds that a worker thread waits for another process's lock.
            file: the file that they are connected to, checked in each transaction.
            deadline: of the reads of each thread.
            steps: the number of SQLite's steps between two checks of the deadline.
        """
        self._engine = engine
        self._busy_timeout = busy_timeout
        self._file = file
        self._deadline = deadline
        self._steps = steps
        # Idle connections of worker threads, and of reads that have a deadline.
        self._patient: deque[KeptConnection] = deque()
        self._impatient: deque[KeptConnection] = deque()

    def connect(self) -> None:
        """Open a connection for reads that have a deadline."""
        self._impatient.append(self._borrow(self._impatient))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection in a snapshot."""
        deadline = self._deadline.at
        idle = self._patient if deadline is None else self._impatient
        kept = self._borrow(idle)
        try:
            kept.driver.execute("BEGIN")
            kept.interrupt_after = deadline or _NEVER
            yield kept.connection
        finally:
            self._give_back(kept, idle)
            if self._file is not None:
                self._file.check()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection that holds the write lock, and commit unless it raises."""
        kept = self._borrow(self._patient)
        try:
            if self._file is not None:
                self._file.check()
            kept.connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield kept.connection
            kept.connection.exec_driver_sql("COMMIT")
        finally:
            self._give_back(kept, self._patient)
            if self._file is not None:
                self._file.check_all()

    def close(self) -> None:
        """Close all connections. They must be idle."""
        for idle in (self._patient, self._impatient):
            while idle:
                idle.pop().connection.close()

    def _borrow(self, idle: deque[KeptConnection]) -> KeptConnection:
        try:
            return idle.pop()
        except IndexError:
            if idle is self._impatient:
                return KeptConnection(self._engine, wait=0, steps=self._steps)
            return KeptConnection(self._engine, self._busy_timeout, steps=None)

    def _give_back(self, kept: KeptConnection, idle: deque[KeptConnection]) -> None:
        kept.end()
        if not kept.connection.closed:
            idle.append(kept)


class OpenBlock:
    """An open ``reading()`` or ``writing()``, and what to do after its commit."""

    def __init__(self, kind: Literal["reading", "writing"], connection: Connection) -> None:
        self.kind = kind
        self.connection = connection
        self.actions: list[Action] = []


class ServiceSession(Session):
    """A session on the service's kept connections.

    While it holds neither a transaction nor entities, ``reading()`` and ``writing()`` run on a kept
    connection. With either it behaves like any other session.

    Attributes:
        connections: the kept connections.
        block: the open block, None outside a block.
    """

    connections: KeptConnections
    block: OpenBlock | None = None

    @contextmanager
    def open_block(
        self, kind: Literal["reading", "writing"], connection: Connection
    ) -> Iterator[OpenBlock]:
        """Note the block that is open, so that inner blocks join it."""
        self.block = block = OpenBlock(kind, connection)
        # The session would open a second connection outside this transaction.
        self.autobegin = False
        try:
            yield block
        finally:
            self.autobegin = True
            self.block = None


@contextmanager
def reading(session: AnySession) -> Iterator[Connection]:
    """Let all reads inside see one snapshot, regardless of other commits.

    Joins an open transaction and leaves it open. Otherwise it begins a snapshot and ends it.
    """
    own = _service_session(session)
    if own is None:
        with callers_session.reading(session) as connection:
            yield connection
    elif own.block is not None:
        yield own.block.connection
    else:
        with own.connections.reading() as connection, own.open_block("reading", connection):
            yield connection


@contextmanager
def writing(session: AnySession) -> Iterator[Connection]:
    """Commit the changes made inside, or roll them back if it raises.

    Inside another ``writing()`` it joins that transaction: its changes are undone if it raises, and
    committed by the outermost block. The same holds inside ``session.begin()``, and if the caller
    has uncommitted changes: these stay the caller's to commit or roll back, together with the
    changes made inside. A transaction in which the caller has only read is ended first, because
    SQLite cannot upgrade an outdated snapshot to a write.

    On SQLite it takes the write lock at its beginning, so it never fails half-way for lack of it.
    PostgreSQL locks rows: a movie read by ``MovieRepository.require()`` inside stays locked, so a
    write based on it loses no concurrent update.

    Entities that the caller holds show the new values afterwards, unless the session was made with
    ``expire_on_commit=False``. A session of the service that holds no entities refuses them inside;
    use ``session.begin()`` to mix them with verbs.

    Raises:
        RuntimeError: it is inside ``reading()``, whose snapshot cannot be written to.
    """
    own = _service_session(session)
    if own is None:
        with callers_session.writing(session) as connection:
            yield connection
    elif own.block is None:
        with own.connections.writing() as connection, own.open_block("writing", connection) as new:
            yield connection
        for action in new.actions:
            action()
    elif own.block.kind == "reading":
        raise RuntimeError(callers_session.WRITING_INSIDE_READING)
    else:
        with _savepoint(own.block) as connection:
            yield connection


def is_writing(session: AnySession) -> bool:
    """Return whether the session is inside ``writing()``."""
    own = _service_session(session)
    if own is None:
        return callers_session.is_writing(session)
    return own.block is not None and own.block.kind == "writing"


def after_commit(session: AnySession, action: Action) -> None:
    """Run an action when the open ``writing()`` is committed, never if it is rolled back."""
    own = _service_session(session)
    if own is not None and own.block is not None:
        own.block.actions.append(action)
    else:
        callers_session.after_commit(session, action)


def _service_session(session: AnySession) -> ServiceSession | None:
    """Return the session if its blocks run on a kept connection."""
    if not isinstance(session, ServiceSession):
        return None
    is_callers = session.block is None and (session.in_transaction() or session.identity_map)
    return None if is_callers else session


@contextmanager
def _savepoint(block: OpenBlock) -> Iterator[Connection]:
    done_before = len(block.actions)
    savepoint = block.connection.begin_nested()
    try:
        yield block.connection
        savepoint.commit()
    except BaseException:
        del block.actions[done_before:]
        # A full disk ends the whole transaction, so the savepoint is gone.
        with suppress(DBAPIError):
            savepoint.rollback()
        raise

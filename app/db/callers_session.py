"""``reading()`` and ``writing()`` on a session that belongs to the caller, as in a notebook.

The session may be half-way through a transaction, hold entities, or run on a plain
``create_engine("sqlite:///...")``. The service uses these functions on PostgreSQL, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

WRITING_INSIDE_READING = "writing() cannot be used inside reading()"
# Changes nothing, and takes SQLite's write lock even in a transaction begun without it.
_LOCK_SQLITE = "UPDATE movie SET id = id WHERE 0"


@dataclass
class _State:
    """The open blocks of a session.

    Attributes:
        reading: the session transaction in which the outermost ``reading()`` runs.
        writing: the session transaction in which the outermost ``writing()`` runs.
        actions: to run after the commit, each with the transaction that it depends on.
        changes_at_begin: SQLite's count of changed rows when the transaction began.
    """

    reading: SessionTransaction | None = None
    writing: SessionTransaction | None = None
    actions: list[tuple[SessionTransaction | None, Callable[[], object]]] = field(
        default_factory=list
    )
    changes_at_begin: int = 0


# A state refers to its session through a transaction only while a block is open: a reference that
# stayed would keep the session alive.
_STATES: WeakKeyDictionary[Session, _State] = WeakKeyDictionary()


@contextmanager
def reading(session: Session) -> Iterator[Connection]:
    """Join the open transaction, or begin a snapshot and end it."""
    joins = session.in_transaction()
    if joins:
        session.flush()
    connection = session.connection() if joins else _begin_snapshot(session)
    state, transaction = _state(session), session.get_transaction()
    outer, state.reading = state.reading, transaction
    try:
        yield connection
    finally:
        state.reading = outer
        if not joins and transaction is not None and transaction is session.get_transaction():
            # Session.rollback() would expire entities even with expire_on_commit=False.
            transaction.close()
            _expire_entities(session)


@contextmanager
def writing(session: Session) -> Iterator[Connection]:
    """Join the caller's transaction, or begin one and commit it."""
    transaction = session.get_transaction()
    if is_writing(session):
        with _savepoint(session) as connection:
            yield connection
    elif transaction is not None and transaction is _state(session).reading:
        raise RuntimeError(WRITING_INSIDE_READING)
    elif transaction is not None and _is_callers(session, transaction):
        _state(session).writing = transaction
        try:
            _lock(session)
            with _savepoint(session) as connection:
                yield connection
        finally:
            _state(session).writing = None
    else:
        if transaction is not None:
            session.commit()
        with session.begin() as own:
            _state(session).writing = own
            try:
                yield _lock(session)
            finally:
                _state(session).writing = None


def is_writing(session: Session) -> bool:
    """Return whether the session is inside ``writing()``."""
    transaction = session.get_transaction()
    # Compared by identity: a block may end late, when its generator is garbage-collected.
    return transaction is not None and transaction is _state(session).writing


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Run an action after the commit, unless its savepoint or transaction is rolled back."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    _state(session).actions.append((transaction, action))


def _state(session: Session) -> _State:
    state = _STATES.get(session)
    return _STATES.setdefault(session, _State()) if state is None else state


@event.listens_for(Session, "after_begin")
def _count_changes(session: Session, begun: SessionTransaction, connection: Connection) -> None:
    if connection.dialect.name == "sqlite" and not begun.nested:
        _state(session).changes_at_begin = _driver(connection).total_changes


@event.listens_for(Session, "after_commit")
def _run_actions(session: Session) -> None:
    # This event also fires when a savepoint ends.
    if session in _STATES and not session.in_nested_transaction():
        actions, _STATES[session].actions = _STATES[session].actions, []
        for _, action in actions:
            action()


@event.listens_for(Session, "after_soft_rollback")
def _forget_actions_of_savepoint(session: Session, ended: SessionTransaction) -> None:
    if session in _STATES:
        actions = _STATES[session].actions
        actions[:] = [entry for entry in actions if not _is_within(entry[0], ended)]


@event.listens_for(Session, "after_transaction_end")
def _forget_actions(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None and session in _STATES:
        _STATES[session].actions.clear()


def _is_within(transaction: SessionTransaction | None, ended: SessionTransaction) -> bool:
    while transaction is not None and transaction is not ended:
        transaction = transaction.parent
    return transaction is not None


def _begin_snapshot(session: Session) -> Connection:
    bind = session.get_bind()
    if bind.dialect.name == "postgresql" and isinstance(bind, Engine):
        return session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    connection = session.connection()
    # In its default mode, Python's driver begins no transaction for a read.
    if connection.dialect.name == "sqlite" and not _driver(connection).in_transaction:
        connection.exec_driver_sql("BEGIN")
    return connection


def _lock(session: Session) -> Connection:
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_LOCK_SQLITE)
    return connection


@contextmanager
def _savepoint(session: Session) -> Iterator[Connection]:
    with session.begin_nested():
        yield session.connection()
    _expire_entities(session)


def _is_callers(session: Session, transaction: SessionTransaction) -> bool:
    """Return whether the caller has begun an open transaction explicitly, or changed rows in it."""
    begun_explicitly = transaction.origin is not SessionTransactionOrigin.AUTOBEGIN
    if begun_explicitly or session.in_nested_transaction():
        return True
    session.flush()
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # A transaction gets its id with its first change.
        query = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
        return bool(connection.exec_driver_sql(query).scalar_one())
    return bool(_driver(connection).total_changes != _state(session).changes_at_begin)


def _expire_entities(session: Session) -> None:
    """Make the caller's entities show the stored values, as after a commit."""
    if session.expire_on_commit:
        session.expire_all()


def _driver(connection: Connection) -> Any:  # noqa: ANN401 - sqlite3's or psycopg's connection
    return connection.connection.driver_connection

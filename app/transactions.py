"""Transactions: the only place that begins, commits and rolls back.

``writing()`` and ``reading()`` nest, so that domain verbs compose::

    with writing(session):
        movie = repository.create(title="Heat", year=1995)
        repository.add_rating(movie.id, score=5)  # both are stored, or neither

They work with any session: the service's, or one on a plain ``create_engine("sqlite:///...")``.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NewType, Protocol, cast

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

# A session that is only read from, on PostgreSQL perhaps a replica's. writing() and what writes do
# not take one, which type checkers see. To read from, every session will do.
ReadSession = NewType("ReadSession", object)

# Keys of Session.info. Where the service's sessions have the connections that it keeps open:
KEPT = "movie_service.kept"
# The one of those that an outermost block works on, after the block's kind.
_BLOCK = "movie_service.block"
# The session's own transaction that an outermost block is in.
_READING = "movie_service.reading"
_WRITING = "movie_service.writing"
_AFTER_COMMIT = "movie_service.after_commit"
_CHANGES_AT_BEGIN = "movie_service.changes_at_begin"
# Changes nothing, and takes SQLite's write lock however the transaction was begun.
_LOCK_SQLITE = "UPDATE movie SET id = id WHERE 0"


class Transactions(Protocol):
    """How transactions begin and end on a connection that is kept open."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a snapshot."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that holds the write lock."""


@contextmanager
def reading(session: Session | ReadSession) -> Iterator[Connection]:
    """Show everything that is read inside as of one moment, whatever others commit.

    Joins the transaction that is open, and leaves it open. Without one, begins a snapshot and
    ends it at the end.
    """
    session = cast("Session", session)
    if block := session.info.get(_BLOCK):
        yield block[1]
    elif kept := _kept(session):
        with kept.reading() as connection:
            _open_block(session, "reading", connection)
            try:
                yield connection
            finally:
                _close_block(session)
    else:
        with _snapshot(session) as connection:
            yield connection


@contextmanager
def writing(session: Session) -> Iterator[Connection]:
    """Commit what is done inside, or roll it back if it raises.

    Inside another ``writing()`` it joins that one's transaction: what is done inside is undone if
    it raises, and committed by the outermost. The same holds inside ``session.begin()``, and where
    the caller has changed rows and not committed them: they stay the caller's to commit or to roll
    back, together with what is done inside. A transaction in which the caller has only read is
    ended first, since SQLite cannot let a snapshot that others have outdated write.

    On SQLite it takes the write lock at its beginning, so it never fails half-way for want of it.
    PostgreSQL locks rows: a write that rests on a movie read inside loses no update of others if
    that was read by ``MovieRepository.get()``, which locks it.

    Entities that the caller holds show the new values afterwards, unless the session is told to
    keep the old ones (``expire_on_commit=False``). A session of the service that holds none yet
    refuses entities inside: there, ``session.begin()`` lets them mix with verbs.

    Raises:
        RuntimeError: it stands inside ``reading()``, whose snapshot cannot be written to.
    """
    transaction = session.get_transaction()
    if is_writing(session):
        with _savepoint(session) as connection:
            yield connection
    elif _is_reading(session):
        raise RuntimeError("writing() cannot stand inside reading()")
    elif transaction is not None and _is_callers(session, transaction):
        session.info[_WRITING] = transaction
        try:
            _lock(session)
            with _savepoint(session) as connection:
                yield connection
        finally:
            session.info.pop(_WRITING)
    else:
        if transaction is not None:
            session.commit()
        with _transaction(session) as connection:
            yield connection


def is_writing(session: Session | ReadSession) -> bool:
    """Tell whether the session is inside ``writing()``."""
    return _is_in(cast("Session", session), "writing", _WRITING)


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Run an action when what ``writing()`` does is committed, and not if it is rolled back."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info.setdefault(_AFTER_COMMIT, []).append((transaction, action))


@event.listens_for(Session, "after_commit")
def _run_actions(session: Session) -> None:
    # The end of a savepoint is told of as well.
    if not session.in_nested_transaction():
        for _, action in session.info.pop(_AFTER_COMMIT, ()):
            action()


@event.listens_for(Session, "after_soft_rollback")
def _forget_actions_of_savepoint(session: Session, ended: SessionTransaction) -> None:
    if actions := session.info.get(_AFTER_COMMIT):
        actions[:] = [entry for entry in actions if not _is_within(entry[0], ended)]


@event.listens_for(Session, "after_transaction_end")
def _forget_actions(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.pop(_AFTER_COMMIT, None)


@event.listens_for(Session, "after_begin")
def _count_changes(session: Session, begun: SessionTransaction, connection: Connection) -> None:
    if connection.dialect.name == "sqlite" and not begun.nested:
        session.info[_CHANGES_AT_BEGIN] = _driver(connection).total_changes


def _is_within(transaction: SessionTransaction | None, ended: SessionTransaction) -> bool:
    while transaction is not None and transaction is not ended:
        transaction = transaction.parent
    return transaction is not None


def _is_reading(session: Session) -> bool:
    return _is_in(session, "reading", _READING)


def _is_in(session: Session, kind: str, key: str) -> bool:
    if block := session.info.get(_BLOCK):
        return bool(block[0] == kind)
    transaction = session.get_transaction()
    # Compared, since a block may end late: a stream's does when its reader has dropped it.
    return transaction is not None and transaction is session.info.get(key)


def _kept(session: Session) -> Transactions | None:
    """Return the service's connections, if the session has neither a transaction nor entities."""
    is_idle = not (session.in_transaction() or session.identity_map)
    return session.info.get(KEPT) if is_idle else None


def _open_block(session: Session, kind: str, connection: Connection) -> None:
    session.info[_BLOCK] = (kind, connection)
    # The session would work on a connection of its own, beside the transaction.
    session.autobegin = False


def _close_block(session: Session) -> None:
    session.autobegin = True
    del session.info[_BLOCK]


@contextmanager
def _snapshot(session: Session) -> Iterator[Connection]:
    joins = session.in_transaction()
    if joins:
        session.flush()
    connection = session.connection() if joins else _begin_snapshot(session)
    transaction = session.get_transaction()
    outer = session.info.get(_READING)
    session.info[_READING] = transaction
    try:
        yield connection
    finally:
        session.info[_READING] = outer
        if not joins and transaction is not None and transaction is session.get_transaction():
            # Session.rollback() would expire entities even where expire_on_commit is off.
            transaction.close()
            _expire_entities(session)


def _begin_snapshot(session: Session) -> Connection:
    bind = session.get_bind()
    if bind.dialect.name == "postgresql" and isinstance(bind, Engine):
        return session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    connection = session.connection()
    # Python's driver, where the engine leaves that to it, begins no transaction to read.
    if connection.dialect.name == "sqlite" and not _driver(connection).in_transaction:
        connection.exec_driver_sql("BEGIN")
    return connection


@contextmanager
def _transaction(session: Session) -> Iterator[Connection]:
    if not (kept := _kept(session)):
        with session.begin() as own:
            session.info[_WRITING] = own
            yield _lock(session)
        return
    try:
        with kept.writing() as connection:
            _open_block(session, "writing", connection)
            try:
                yield connection
            finally:
                _close_block(session)
        _run_actions(session)
    finally:
        session.info.pop(_AFTER_COMMIT, None)


def _lock(session: Session) -> Connection:
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_LOCK_SQLITE)
    return connection


@contextmanager
def _savepoint(session: Session) -> Iterator[Connection]:
    block = session.info.get(_BLOCK)
    if block is None:
        with session.begin_nested():
            yield session.connection()
        _expire_entities(session)
        return
    actions = session.info.setdefault(_AFTER_COMMIT, [])
    done_before = len(actions)
    try:
        with block[1].begin_nested():
            yield block[1]
    except BaseException:
        del actions[done_before:]
        raise


def _is_callers(session: Session, transaction: SessionTransaction) -> bool:
    """Tell whether an open transaction is the caller's to end: begun on purpose, or changed."""
    begun_on_purpose = transaction.origin is not SessionTransactionOrigin.AUTOBEGIN
    if begun_on_purpose or session.in_nested_transaction():
        return True
    session.flush()
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # A transaction gets its id with its first change.
        query = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
        return bool(connection.exec_driver_sql(query).scalar_one())
    return bool(_driver(connection).total_changes != session.info[_CHANGES_AT_BEGIN])


def _expire_entities(session: Session) -> None:
    """Let the caller's entities show what is stored, where they would after a commit."""
    if session.expire_on_commit:
        session.expire_all()


def _driver(connection: Connection) -> Any:  # noqa: ANN401 - sqlite3's or psycopg's connection
    return connection.connection.driver_connection

"""Transactions: the only place that begins, commits and rolls back.

``writing()`` and ``reading()`` nest, so that domain verbs compose::

    with writing(session):
        repository.create(title="Heat", year=1995)
        repository.add_rating(movie_id=1, score=5)  # both are stored, or neither
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.orm import Session

# Keys of Session.info: the transaction that is open, its connection, and what follows its commit.
_KIND = "movie_service.kind"
_CONNECTION = "movie_service.connection"
_AFTER_COMMIT = "movie_service.after_commit"
# Where the service's sessions have the connections that it keeps open.
KEPT = "movie_service.kept"
# The execution option and the key of Connection.info that db.py's engines know.
BEGIN = "movie_service.begin"
CHANGES_AT_BEGIN = "movie_service.changes_at_begin"


class Transactions(Protocol):
    """How transactions begin and end on a connection that is kept open."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a snapshot."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that holds the write lock."""


@contextmanager
def reading(session: Session) -> Iterator[Connection]:
    """Show everything that is read inside as of one moment, whatever others commit.

    Joins the transaction that is open, and leaves it open. Without one, begins a snapshot and
    ends it at the end.
    """
    if (connection := session.info.get(_CONNECTION)) is not None:
        yield connection
    elif session.in_transaction():
        session.flush()
        yield session.connection()
    else:
        kept: Transactions | None = session.info.get(KEPT)
        with kept.reading() if kept else _snapshot(session) as connection:
            session.info |= {_KIND: "reading", _CONNECTION: connection}
            try:
                yield connection
            finally:
                del session.info[_KIND], session.info[_CONNECTION]


@contextmanager
def writing(session: Session) -> Iterator[Connection]:
    """Commit what is done inside, or roll it back if it raises.

    Inside another ``writing()`` it joins that one's transaction: what is done inside is undone if
    it raises, and committed by the outermost. The same holds where the caller has changed rows
    and not committed them: they stay the caller's to commit or to roll back, together with what
    is done inside. A transaction in which the caller has only read is ended first, since SQLite
    cannot let a snapshot that others have outdated write.

    On SQLite it takes the write lock at its beginning, so it never fails half-way for want of it.

    Raises:
        RuntimeError: it stands inside ``reading()``, whose snapshot cannot be written to.
    """
    kind = session.info.get(_KIND)
    if kind == "reading":
        raise RuntimeError("writing() cannot stand inside reading()")
    if kind == "writing" or _has_uncommitted_changes(session):
        with _savepoint(session) as connection:
            yield connection
        return
    if session.in_transaction():
        session.commit()
    actions: list[Callable[[], object]] = []
    kept: Transactions | None = session.info.get(KEPT)
    with kept.writing() if kept else _transaction(session) as connection:
        session.info |= {_KIND: "writing", _CONNECTION: connection, _AFTER_COMMIT: actions}
        try:
            yield connection
        finally:
            del session.info[_KIND], session.info[_CONNECTION], session.info[_AFTER_COMMIT]
    for action in actions:
        action()


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Run an action when the outermost ``writing()`` has committed, and not if it rolls back.

    Where the transaction is the caller's own, it runs at once.
    """
    actions = session.info.get(_AFTER_COMMIT)
    if actions is None:
        action()
    else:
        actions.append(action)


@contextmanager
def _snapshot(session: Session) -> Iterator[Connection]:
    # SQLite reads a snapshot in any transaction, PostgreSQL only when asked to.
    postgresql = session.get_bind().dialect.name == "postgresql"
    options = {"isolation_level": "REPEATABLE READ"} if postgresql else {}
    try:
        yield session.connection(execution_options=options)
    finally:
        session.rollback()


@contextmanager
def _transaction(session: Session) -> Iterator[Connection]:
    try:
        connection = session.connection(execution_options={BEGIN: "BEGIN IMMEDIATE"})
        # An engine that db.py has not made leaves the beginning to the driver, which waits for
        # the first change and so for too long.
        if connection.dialect.name == "sqlite" and not _driver(connection).in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        session.commit()
    except BaseException:
        session.rollback()
        raise


@contextmanager
def _savepoint(session: Session) -> Iterator[Connection]:
    actions: list[Callable[[], object]] = session.info.get(_AFTER_COMMIT, [])
    done_before = len(actions)
    kept: Transactions | None = session.info.get(KEPT)
    connection: Connection | None = session.info.get(_CONNECTION) if kept else None
    try:
        with connection.begin_nested() if connection else session.begin_nested():
            yield connection or session.connection()
        # Entities that the caller has loaded show what was written without them.
        session.expire_all()
    except BaseException:
        del actions[done_before:]
        raise


def _has_uncommitted_changes(session: Session) -> bool:
    """Tell whether the open transaction, if there is one, has changed anything."""
    if not session.in_transaction():
        return False
    if session.new or session.dirty or session.deleted:
        return True
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # A transaction gets its id with its first change.
        query = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
        return bool(connection.exec_driver_sql(query).scalar_one())
    driver = _driver(connection)
    if not driver.in_transaction:
        return False
    # The driver begins a transaction at its first change, where that is left to it.
    begun_by_driver = driver.isolation_level is not None
    changes: int = driver.total_changes
    return begun_by_driver or changes != connection.info.get(CHANGES_AT_BEGIN)


def _driver(connection: Connection) -> Any:  # noqa: ANN401 - sqlite3's or psycopg's connection
    return connection.connection.driver_connection

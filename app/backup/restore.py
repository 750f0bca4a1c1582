"""Puts a copy of a SQLite database in the database's place."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.engine import make_url

from app.db_errors import is_busy, readable_database_errors
from app.errors import SetupError
from app.migrate import migrate_to_head
from app.startup import open_session, problems_of

# Problems that an error names.
NAMED_PROBLEMS = 5


def restore(database_url: str, source: Path) -> str | None:
    """Replace the SQLite database by a copy of another, which stays as it is.

    The copy is migrated to head and checked before it takes the place. At each moment either the
    old or the new database is there whole, without a ``-wal`` of the other.

    Returns:
        The revision from which the copy was brought to head, None if it was there.

    Raises:
        SetupError: a process has the database open, the copy is not sound, or one of the two
            cannot be read or written.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise SetupError("This restores SQLite files. For PostgreSQL, run psql or pg_restore.")
    target = Path(str(url.database)).resolve()
    try:
        _require_whole_copy(source, target)
        # In the same folder, so that taking the place is a rename.
        with TemporaryDirectory(prefix=f"{target.name}.restoring-", dir=target.parent) as folder:
            prepared = Path(folder) / target.name
            shutil.copyfile(source, prepared)
            older_revision = _prepare(prepared, source)
            with _nobody_else(target):
                _take_over_owner(target, prepared)
                prepared.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise SetupError(f"Cannot restore {source} to {target}: {error.strerror}.") from error
    return older_revision


def _require_whole_copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise SetupError(f"There is no file {source}.")
    if target.exists() and source.samefile(target):
        raise SetupError(f"{source} is the database itself.\nName a copy of it.")
    wal = Path(f"{source}-wal")
    if wal.exists() and wal.stat().st_size:
        raise SetupError(
            f"{source} is not whole without {wal.name}.\n"
            "Make a copy with: uv run python scripts/db.py backup FILE"
        )
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent}.\nMake it.")


def _prepare(prepared: Path, source: Path) -> str | None:
    """Bring a copy to head, check it, write it to disk, and return its revision if not head."""
    url = f"sqlite:///{prepared}"
    with _named(prepared, source):
        with (
            closing(sqlite3.connect(prepared)) as database,
            readable_database_errors(make_url(url)),
        ):
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
        if "alembic_version" not in tables:
            raise SetupError(f"{source} is not a database of this service.")
        problems = [problem for problem in found if problem != "ok"]
        if not problems:
            before = _revision(prepared)
            migrate_to_head(str(url))
            with open_session(str(url)) as session:
                problems = [*problems_of(session)]
            _empty_wal(prepared)
        if problems:
            more = len(problems) - NAMED_PROBLEMS
            rest = [f"and {more} more"] if more > 0 else []
            named = "\n".join([*problems[:NAMED_PROBLEMS], *rest])
            raise SetupError(f"{source} is not sound, nothing was restored:\n{named}")
    is_older = before != _revision(prepared)
    _sync(prepared)
    return before if is_older else None


def _revision(prepared: Path) -> str:
    with closing(sqlite3.connect(prepared)) as database:
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else "base"


def _empty_wal(prepared: Path) -> None:
    # Closing the last connection does so too, and keeps quiet where the disk is full.
    with (
        readable_database_errors(make_url(f"sqlite:///{prepared}")),
        closing(sqlite3.connect(prepared)) as database,
    ):
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _named(prepared: Path, source: Path) -> Iterator[None]:
    """Let an error name the file that the user has named."""
    try:
        yield
    except SetupError as error:
        raise SetupError(str(error).replace(str(prepared), str(source))) from error


@contextmanager
def _nobody_else(target: Path) -> Iterator[None]:
    """Keep every other process from a database and leave no ``-wal`` and ``-shm`` beside it."""
    if target.exists():
        in_use = SetupError(
            f"A process has {target} open, nothing was restored.\nStop the service first."
        )
        with closing(sqlite3.connect(target, timeout=0, isolation_level=None)) as database:
            try:
                # A connection of another process holds a lock on the file even if it is idle.
                database.execute("PRAGMA locking_mode=EXCLUSIVE")
                # Also copies what the -wal holds, and removes it.
                if database.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "wal":
                    raise in_use
                database.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if is_busy(error):
                    raise in_use from error
                raise SetupError(f"Cannot lock {target}: {error}.") from error
            except sqlite3.DatabaseError:
                pass  # what is there is no database, which is why a copy is restored
            _remove_leftovers(target)
            yield
    else:
        _remove_leftovers(target)
        yield


def _take_over_owner(target: Path, prepared: Path) -> None:
    """Let the service's user read and write the copy as it did the database."""
    if target.exists():
        status = target.stat()
        prepared.chmod(status.st_mode)
        if (status.st_uid, status.st_gid) != (os.getuid(), os.getgid()):
            os.chown(prepared, status.st_uid, status.st_gid)


def _remove_leftovers(target: Path) -> None:
    # SQLite would replay a -wal into whatever file it lies beside.
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

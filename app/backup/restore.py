"""Replacing the SQLite database with a copy."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url

from app.checks import problems as problems_of
from app.db import exclusive, explained_errors, open_session, unfinished_folder
from app.errors import SetupError
from app.upgrade import upgrade

# Problems listed in an error.
LISTED_PROBLEMS = 5


def restore(database_url: str, source: Path) -> str | None:
    """Replace the SQLite database with a copy of ``source``, which is not changed.

    The copy is migrated to head and checked before the swap. At any moment, the path holds either
    the old or the new database, complete and without the ``-wal`` of the other.

    Returns:
        The revision from which the copy was upgraded, or None if it was at head.

    Raises:
        SetupError: a process has the database open, the copy is not sound, or one of the two
            files cannot be read or written.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise SetupError(
            "Only SQLite databases can be restored. For PostgreSQL, run psql or pg_restore."
        )
    target = Path(str(url.database)).resolve()
    try:
        _require_complete_copy(source, target)
        # In the same folder, because a rename works only within one file system.
        with unfinished_folder(target.parent, f"{target.name}.restoring-") as folder:
            prepared = folder / target.name
            shutil.copyfile(source, prepared)
            older_revision = _prepare(prepared, source)
            with explained_errors(url), exclusive(target):
                _copy_owner(target, prepared)
                prepared.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise SetupError(f"Cannot restore {source} to {target}: {error.strerror}.") from error
    return older_revision


def _require_complete_copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise SetupError(f"{source} does not exist.")
    if target.is_dir():
        raise SetupError(f"{target} is a folder.\nName a file in MOVIE_DATABASE_URL.")
    if target.exists() and source.samefile(target):
        raise SetupError(f"{source} is the database itself.\nChoose a copy of it.")
    wal = Path(f"{source}-wal")
    if wal.exists() and wal.stat().st_size:
        raise SetupError(
            f"{source} is incomplete without {wal.name}.\n"
            "Make a copy with: uv run python scripts/db.py backup FILE"
        )
    if not target.parent.is_dir():
        raise SetupError(f"The folder {target.parent} does not exist.\nCreate it.")
    _require_own(target)


def _require_own(target: Path) -> None:
    """Raise if a sound database of another program would be lost."""
    tables = set()
    # An error: the file is missing or damaged, which is why a copy is restored.
    with suppress(sqlite3.Error), closing(_opened(target)) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    if tables and "alembic_version" not in tables:
        raise SetupError(
            f"{target} is a database of another program. Nothing was restored.\n"
            "Name another file in MOVIE_DATABASE_URL."
        )


def _opened(path: Path) -> sqlite3.Connection:
    """Return a connection that creates no file, not even a -shm, and changes none."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)


def _prepare(prepared: Path, source: Path) -> str | None:
    """Migrate a copy to head, check and sync it, and return its old revision if not head."""
    url = f"sqlite:///{prepared}"
    with _naming_source(prepared, source):
        with closing(sqlite3.connect(prepared)) as database, explained_errors(make_url(url)):
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
        if "alembic_version" not in tables:
            raise SetupError(f"{source} is not a database of this service.")
        problems = [problem for problem in found if problem != "ok"]
        if not problems:
            before = _revision(prepared)
            upgrade(str(url))
            with open_session(str(url)) as session:
                problems = [*problems_of(session)]
            _empty_wal(prepared)
        if problems:
            more = len(problems) - LISTED_PROBLEMS
            rest = [f"and {more} more"] if more > 0 else []
            listed = "\n".join([*problems[:LISTED_PROBLEMS], *rest])
            raise SetupError(f"{source} is not sound. Nothing was restored:\n{listed}")
    is_older = before != _revision(prepared)
    _sync(prepared)
    return before if is_older else None


def _revision(prepared: Path) -> str:
    url = make_url(f"sqlite:///{prepared}")
    with explained_errors(url), closing(sqlite3.connect(prepared)) as database:
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else "base"


def _empty_wal(prepared: Path) -> None:
    # Closing the last connection would do this too, but without an error if the disk is full.
    with (
        explained_errors(make_url(f"sqlite:///{prepared}")),
        closing(sqlite3.connect(prepared)) as database,
    ):
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _naming_source(prepared: Path, source: Path) -> Iterator[None]:
    """Name the user's file in errors, instead of its copy."""
    try:
        yield
    except SetupError as error:
        raise SetupError(str(error).replace(str(prepared), str(source))) from error


def _copy_owner(target: Path, prepared: Path) -> None:
    """Give the copy the owner and the permissions of the database."""
    if target.exists():
        status = target.stat()
        prepared.chmod(status.st_mode)
        if (status.st_uid, status.st_gid) != (os.getuid(), os.getgid()):
            os.chown(prepared, status.st_uid, status.st_gid)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

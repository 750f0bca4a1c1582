"""Exclusive access to a SQLite file, so that another file can take its place."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.db.errors import is_busy
from app.errors import SetupError


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Lock out all other processes, with no ``-wal`` and ``-shm`` left beside the file.

    Raises:
        SetupError: another process has the file open, or it cannot be locked.
    """
    if target.exists():
        in_use = SetupError(
            f"A process has {target} open, nothing was restored.\nStop the service first."
        )
        with closing(sqlite3.connect(target, timeout=0, isolation_level=None)) as database:
            try:
                # Even an idle connection of another process locks the file.
                database.execute("PRAGMA locking_mode=EXCLUSIVE")
                # Also copies the frames of the -wal into the file and removes it.
                if database.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "wal":
                    raise in_use
                database.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if is_busy(error):
                    raise in_use from error
                raise SetupError(f"Cannot lock {target}: {error}.") from error
            except sqlite3.DatabaseError:
                pass  # a damaged file, which is why a copy is restored
            _remove_leftovers(target)
            yield
    else:
        _remove_leftovers(target)
        yield


def _remove_leftovers(target: Path) -> None:
    # SQLite would replay a -wal into the new file and corrupt it.
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

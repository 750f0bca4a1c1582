"""Copying a SQLite database while it is in use."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from app.db import explained_errors, is_disk_full, require_file, unfinished_folder
from app.errors import SetupError


def backup(database_url: str, target: Path) -> None:
    """Write a snapshot of the SQLite database to a new file while the database is in use.

    Raises:
        SetupError: the target exists or cannot be written, or the database is not SQLite.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise SetupError("Only SQLite databases can be copied. For PostgreSQL, run pg_dump.")
    require_file(url)
    exists = SetupError(f"{target} already exists.\nChoose another file name.")
    try:
        if target.exists():
            raise exists
        if not target.parent.is_dir():
            raise SetupError(
                f"The folder {target.parent} does not exist.\nCreate it or choose another one."
            )
        # Copy to a separate folder and sync there, because VACUUM INTO does not sync.
        with unfinished_folder(target.parent, f"{target.name}.unfinished-") as folder:
            unfinished = folder / target.name
            with explained_errors(url), closing(sqlite3.connect(str(url.database))) as source:
                _copy(source, unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            _put_in_place(unfinished, target)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise SetupError(f"Cannot write {target}: {error.strerror}.") from error


def _put_in_place(unfinished: Path, target: Path) -> None:
    """Move a file to its target name, unless another process has created that file.

    Raises:
        FileExistsError: the target exists.
    """
    try:
        # Fails if the name is taken; a rename would overwrite.
        target.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError:
        # FAT, exFAT and some network shares have no hard links: reserve the name with an empty
        # file, and overwrite it.
        target.open("x").close()
        try:
            unfinished.replace(target)
        except OSError:
            target.unlink()
            raise


def _copy(source: sqlite3.Connection, target: Path) -> None:
    try:
        source.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.OperationalError as error:
        # The error would name the source, which is fine.
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise

"""A copy of a SQLite database in use."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.engine import make_url

from app.db_errors import is_disk_full, readable_database_errors
from app.errors import SetupError
from app.migrate import require_file


def backup(database_url: str, target: Path) -> None:
    """Copy the SQLite database to a new file, as it was at one moment, while others use it.

    Raises:
        SetupError: the target exists or cannot be written, or the database is not SQLite's.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise SetupError("This copies SQLite files. For PostgreSQL, run pg_dump.")
    require_file(url)
    exists = SetupError(f"{target} exists and is not overwritten.\nName another file.")
    try:
        if target.exists():
            raise exists
        if not target.parent.is_dir():
            raise SetupError(f"There is no folder {target.parent}.\nMake it, or name another file.")
        # In a folder of its own until it is whole and on disk, which VACUUM INTO does not see to.
        with TemporaryDirectory(prefix=f"{target.name}.unfinished-", dir=target.parent) as folder:
            unfinished = Path(folder) / target.name
            with (
                readable_database_errors(url),
                closing(sqlite3.connect(str(url.database))) as source,
            ):
                _copy(source, unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            _put_in_place(unfinished, target)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise SetupError(f"Cannot write {target}: {error.strerror}.") from error


def _put_in_place(unfinished: Path, target: Path) -> None:
    """Give a file its name, unless another file has come there in the meantime.

    Raises:
        FileExistsError: one has.
    """
    try:
        # Fails where a rename would overwrite.
        target.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError:
        # FAT, exFAT and some network shares have no hard links: a file of our own takes the place,
        # which others see empty for a moment, and is overwritten.
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
        # It would be said of the source, which is well.
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise

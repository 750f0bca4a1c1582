"""Detects that the SQLite file of a running service was deleted, moved, replaced or overwritten.

SQLite does not: it would acknowledge writes that are lost, and mix the pages of two files.
"""

import ctypes
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import Struct
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import Engine, event

from app.db.errors import explained_errors
from app.errors import DatabaseError, DatabaseFileReplaced, DatabaseUnavailable
from app.logs import log_event

# The part of a -shm about checkpoints, see https://sqlite.org/walformat.html: the number of
# commits, the number of frames in the WAL, its salts, and the numbers of frames copied and
# attempted.
_CHECKPOINTS = slice(8, 132)
_CHECKPOINT_FIELDS = Struct("=I4xI12x8s56xI28xI")
# The start of a database file: magic string, page size and journal mode; then its change counter.
_HEADER = Struct(">20s4xI")

Identity = tuple[int, int]  # device and inode


@contextmanager
def guarded(engine: Engine, interval: float) -> Iterator["DatabaseFile | None"]:
    """Open the SQLite file of an engine, and let the engine connect to no other file.

    Yields None for PostgreSQL, and if SQLite cannot keep a WAL: every transaction then looks for
    the file's journal again. At the end the engine has no connections.

    Args:
        engine: the engine.
        interval: seconds between two checks of the file if no request arrives.
    """
    path = str(engine.url.database)
    with explained_errors(engine.url):
        file = DatabaseFile(path) if engine.dialect.name == "sqlite" and _keeps_wal(path) else None
    if file is None:
        yield None
        return

    def before_connect(_dialect: object, _entry: object, path: list[str], options: Any) -> None:  # noqa: ANN401 - the driver's options
        file.check_all()
        path[0] = file.uri
        options["uri"] = True

    event.listen(engine, "do_connect", before_connect)
    over = Event()
    watcher = Thread(target=_watch, args=(file, interval, over), daemon=True)
    watcher.start()
    try:
        yield file
    finally:
        over.set()
        watcher.join()
        engine.dispose()
        event.remove(engine, "do_connect", before_connect)
        file.close()


def _watch(file: "DatabaseFile", interval: float, over: Event) -> None:
    """Check periodically, in case no request arrives.

    The fewer checkpoints happen between two checks, the more reliably a foreign write can be
    distinguished from them. Until it is detected, the -wal lies next to a file that it does not
    belong to.
    """
    while not over.wait(interval):
        with suppress(DatabaseError):
            file.check_all()


def _keeps_wal(path: str) -> bool:
    uri = f"{Path(path).resolve().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


class _Snapshot(NamedTuple):
    """State of the file at the last check that passed.

    Attributes:
        checkpoints: the part of its -shm about checkpoints, read just before.
        size: in bytes.
        modified: modification time in nanoseconds.
        counter: the change counter in its header.
    """

    checkpoints: bytes
    size: int
    modified: int
    counter: int


class DatabaseFile:
    """The SQLite file at a path, from its opening to ``close()``.

    A file that was deleted, moved or replaced is no longer at its path. An overwritten file still
    is at its path, but in WAL mode only checkpoints write to it, and each one, in any process,
    leaves a trace in the -shm. A modification time that changes without such a trace is a foreign
    write.

    A failed check is final: by then a connection may have mixed the pages of two files.

    Attributes:
        uri: opens connections to the file, and never creates one.
        connection: never commits, so its ``PRAGMA data_version`` changes with every commit.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        # SQLite resolves links before it names the two files beside it.
        main = self._path.resolve()
        self._wal, self._shm = Path(f"{main}-wal"), Path(f"{main}-shm")
        self._set_aside = Path(f"{self._wal}.set-aside")
        self._lock = Lock()
        self._is_replaced = False
        self._is_detached = False
        self.uri = f"{main.as_uri()}?mode=rw"
        self.connection = sqlite3.connect(
            self.uri, uri=True, isolation_level=None, check_same_thread=False
        )
        # Creates both files, which stay until the last connection is closed.
        self.connection.execute("SELECT name FROM sqlite_master").fetchone()
        # The event loop uses this connection, too.
        self.connection.execute("PRAGMA busy_timeout=0")
        # Kept open: when a process closes any descriptor of a file, it loses all its locks on it,
        # including SQLite's.
        self._file, self._index_file = main.open("rb", buffering=0), self._shm.open("rb")
        self._index = mmap(self._index_file.fileno(), 0, access=ACCESS_READ)
        self._identity = _identity(self._path)
        self._wal_identity, self._shm_identity = _identity(self._wal), _identity(self._shm)
        checkpoints, status = self._index[_CHECKPOINTS], self._path.stat()
        self._start, counter = self._read_header()
        self._seen = _Snapshot(checkpoints, status.st_size, status.st_mtime_ns, counter)

    def check(self) -> None:
        """Check in microseconds that the file and its -wal are the ones that were opened.

        Raises:
            DatabaseFileReplaced: one of them is not.
            DatabaseUnavailable: the file system does not answer.
        """
        if self._is_replaced:
            raise DatabaseFileReplaced
        self._check_file()
        self._stat(self._wal, self._wal_identity)

    def check_all(self) -> None:
        """Check the -shm too, without which processes do not see each other's commits.

        Raises:
            DatabaseFileReplaced: one of the three is not the one that was opened.
            DatabaseUnavailable: the file system does not answer.
        """
        self.check()
        self._stat(self._shm, self._shm_identity)

    def close(self) -> None:
        """Check once more and close the file with the last connection."""
        with suppress(DatabaseError):
            self._check_file()
            self._stat(self._wal, self._wal_identity)
        if not self._is_detached:
            self.connection.close()
        self._index.close()
        self._index_file.close()
        self._file.close()

    def _check_file(self) -> None:
        # The order matters: a checkpoint, which may run meanwhile in any process, updates the -shm
        # before it writes to the file.
        seen = self._seen
        checkpoints = self._index[_CHECKPOINTS]
        status = self._stat(self._path, self._identity)
        size, modified, counter = status.st_size, status.st_mtime_ns, seen.counter
        if size != seen.size or modified != seen.modified:
            start, counter = self._read_header()
            if (
                not _may_have_written(seen.checkpoints, self._index[_CHECKPOINTS])
                or start != self._start
                or counter < seen.counter
            ):
                self._fail(self._path, "overwritten")
        elif checkpoints == seen.checkpoints:
            return
        self._seen = _Snapshot(checkpoints, size, modified, counter)

    def _stat(self, path: Path, identity: Identity) -> os.stat_result:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._fail(path, "deleted")
        except OSError as error:
            raise DatabaseUnavailable from error
        if (status.st_dev, status.st_ino) != identity:
            self._fail(path, "replaced")
        return status

    def _read_header(self) -> tuple[bytes, int]:
        with self._lock:
            self._file.seek(0)
            header = self._file.read(_HEADER.size)
        start, counter = _HEADER.unpack(header.ljust(_HEADER.size, b"\0"))
        return start, counter

    def _fail(self, name: Path, what: str) -> NoReturn:
        with self._lock:
            with suppress(OSError):
                # Another worker has already detected that the file was overwritten.
                if _identity(self._set_aside) == self._wal_identity:
                    name, what = self._path, "overwritten"
            if not self._is_replaced:
                self._is_replaced = True
                log_event("database.replaced", logging.ERROR, file=str(name), what=what)
            if what == "overwritten" or (name, what) == (self._wal, "replaced"):
                self._detach_wal()
            elif name == self._path:
                self._checkpoint_old_file()
        raise DatabaseFileReplaced

    def _checkpoint_old_file(self) -> None:
        """Copy all acknowledged writes into the file that was opened, which may have moved.

        This empties the -wal, which SQLite would otherwise replay into the file now at the path.
        """
        with suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _detach_wal(self) -> None:
        """Keep the frames of the -wal out of a file that they do not belong to."""
        self._is_detached = True
        # Closing the last connection would copy them: leak this one, so that none is the last.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connection))
        with suppress(OSError):
            # The next process to open the file would replay them.
            if _identity(self._wal) == self._wal_identity:
                self._wal.replace(self._set_aside)
            # The -shm counts frames of the removed -wal.
            if _identity(self._shm) == self._shm_identity:
                self._shm.unlink()


def _may_have_written(before: bytes, after: bytes) -> bool:
    """Return whether a checkpoint may have written to the file between two reads of its -shm."""
    commits, frames, salts, copied, attempted = _CHECKPOINT_FIELDS.unpack(before)
    commits_after, frames_after, salts_after, _, attempted_after = _CHECKPOINT_FIELDS.unpack(after)
    commits_between = commits_after - commits
    # A checkpoint was running or had failed half-way, or the -shm was rebuilt after a crash, which
    # resets its counts.
    if attempted != copied or commits_between < 0:
        return True
    if salts_after == salts:
        return bool(attempted_after != attempted)
    # The WAL was restarted. That takes a checkpoint, unless all frames had been copied before and
    # the only commit since then is in the new WAL.
    is_first = commits_between == 0 or (commits_between == 1 and frames_after > 0)
    return bool(frames != copied or attempted_after != 0 or not is_first)


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_dev, status.st_ino

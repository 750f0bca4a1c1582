"""The folder in which workers share measurements. Any worker reports the totals of all.

Each worker writes to its own files in the folder. If it is killed, its counts remain, and the
worker that replaces it adds to them.
"""

import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.config import stop

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment] # checked before use

# The environment variable from which prometheus-client reads the folder.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "movie-service-metrics-"
LOCK = "lock"


def share_with_workers() -> Path | None:
    """Set the environment variable. Call this before prometheus-client is imported.

    Workers share a folder that only their server uses, inside the one that the variable names or
    the system's folder for temporary files. So no other program's files are read or removed.

    Returns:
        The folder. None for a single process, whose measurements stay in memory, and on Windows,
        where each worker reports only its own.
    """
    named = os.environ.get(VARIABLE)
    if named and Path(named).name == _folder_name():
        return Path(named)  # by an earlier application of this process
    if fcntl is None or not (named or multiprocessing.parent_process()):
        os.environ.pop(VARIABLE, None)
        return None
    try:
        folder = Path(named or tempfile.gettempdir()).resolve() / _folder_name()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        where = named or "the folder for temporary files"
        reason = f"cannot write to {where}: {error.strerror}"
        stop(f"Set {VARIABLE} to a folder that this user can write to: {reason}.")
    os.environ[VARIABLE] = str(folder)
    return folder


def _folder_name() -> str:
    """Return a name that is the same in all workers of a server, and differs between servers."""
    if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        # It forks its workers without multiprocessing.
        return f"{PREFIX}gunicorn-{os.getppid()}"
    # The key is random; a process id would be reused.
    return PREFIX + hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()[:16]


@contextmanager
def kept_folder(folder: Path) -> Iterator[None]:
    """Keep the folder while any worker is inside, and remove it after the last one."""
    lock = folder / LOCK
    try:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
    finally:
        # OSError: another worker is inside, or has removed the folder.
        with suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for written in (*folder.glob("*_*.db"), lock):
                written.unlink()
            folder.rmdir()

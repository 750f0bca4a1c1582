"""The folder in which workers share measurements. Any worker reports the totals of all.

Each worker writes to its own files in the folder. If it is killed, its counts remain, and the
worker that replaces it adds to them.
"""

import hashlib
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment] # checked before use

# The environment variable from which prometheus-client reads the folder.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share_with_workers() -> Path | None:
    """Set the environment variable. Call this before prometheus-client is imported.

    Returns:
        The folder. None for a single process, whose measurements stay in memory, and on Windows,
        where each worker reports only its own.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    if multiprocessing.parent_process() is None or fcntl is None:
        return None
    # The key is random and the same in all workers of a server; a process id would be reused.
    server = hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"movie-service-metrics-{server}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ[VARIABLE] = str(folder)
    return folder


@contextmanager
def kept_folder(folder: Path) -> Iterator[None]:
    """Keep the folder while any worker is inside, and remove it after the last one."""
    lock = folder / "lock"
    try:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
    finally:
        # OSError: another worker is inside, or has removed the folder.
        with suppress(OSError), lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)

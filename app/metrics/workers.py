"""Where the workers of a server share their measurements, so that any of them can tell of all.

A worker writes to files of its own, in a folder that all know. So nothing is lost if it is killed,
and the one that replaces it goes on counting.
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
    fcntl = None  # type: ignore[assignment] # looked for before use

# Where prometheus-client looks for the folder.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share_with_workers() -> Path | None:
    """Name the folder to the client library, which is not imported yet, and return it.

    Returns:
        None for a server that is one process, whose measurements stay in memory, and on Windows,
        where each worker tells of itself.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    if multiprocessing.parent_process() is None or fcntl is None:
        return None
    # Random, and the same in all workers of one server. A process id would come again.
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
        # An error: another worker is inside, or has removed it.
        with suppress(OSError), lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)

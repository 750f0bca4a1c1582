"""Temporary folders for unfinished files, which are moved to their place once complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment] # checked before use

# Marks a folder as created by this module. Its process locks the file until it ends.
LOCK = ".movie-service-unfinished"


@contextmanager
def unfinished_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder, and remove it at the end.

    Removes folders that killed processes have left, too. A folder of another name, without the
    lock file, or of a process that runs stays as it is.

    Args:
        parent: where to create the folder.
        prefix: how its name begins.
    """
    for folder in parent.glob(f"{escape(prefix)}*"):
        _remove_if_left(folder)
    with TemporaryDirectory(prefix=prefix, dir=parent) as name:
        folder = Path(name)
        lock = os.open(folder / "new", os.O_CREAT | os.O_RDWR)
        try:
            if fcntl is not None:
                # Some network shares have no locks. Without one, nothing marks the folder.
                with suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (folder / "new").rename(folder / LOCK)
            yield folder
        finally:
            os.close(lock)


def _remove_if_left(folder: Path) -> None:
    # An OSError: there is no lock file, its process runs, or the folder is another user's.
    if fcntl is not None and not folder.is_symlink():
        with suppress(OSError), (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)

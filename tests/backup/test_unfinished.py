"""Folders that killed commands have left are removed, and nothing else."""

import fcntl
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.backup.copy import backup
from app.backup.restore import restore
from app.db import unfinished_folder
from app.errors import SetupError
from tests.server import Commands

KILLED = """
import os, signal, sys
from pathlib import Path
from app.backup import restore
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
restore._prepare = kill
restore.restore(sys.argv[1], Path(sys.argv[2]))
"""


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path, sqlite_template: Path) -> Path:
    """A folder with a database, a copy of it, and a user's folder of a similar name."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("movies.db", "copy.db"):
        (folder / name).write_bytes(sqlite_template.read_bytes())
    (folder / "movies.db.restoring-notes").mkdir()
    return folder


@pytest.mark.slow
def test_restore_removes_what_a_killed_restore_has_left(folder: Path) -> None:
    before = names(folder)
    url, copy = f"sqlite:///{folder / 'movies.db'}", folder / "copy.db"
    killed = Commands(folder.parent).run([sys.executable, "-c", KILLED, url, str(copy)])
    left = names(folder)

    restore(url, copy)

    assert killed.exit_code == -signal.SIGKILL
    assert len(left) == len(before) + 1
    assert names(folder) == before


@pytest.mark.parametrize("name", ["movies.db.restoring-", "copy.db.unfinished-", "unfinished-"])
def test_folder_of_a_running_process_stays(tmp_path: Path, name: str) -> None:
    with unfinished_folder(tmp_path, name) as first, unfinished_folder(tmp_path, name) as second:
        assert first.is_dir()
        assert second.is_dir()
        # As long as another process holds the lock; this one is closed with its folder.
        [lock] = first.iterdir()
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert names(tmp_path) == []


def test_database_of_another_program_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE note (id INTEGER PRIMARY KEY)")
    before = path.read_bytes()

    with pytest.raises(SetupError, match="another program"):
        restore(f"sqlite:///{path}", folder / "copy.db")

    assert path.read_bytes() == before


def test_backup_beside_files_of_its_prefix_leaves_them(folder: Path) -> None:
    beside = folder / "new.db.unfinished-mine"
    beside.mkdir()

    backup(f"sqlite:///{folder / 'movies.db'}", folder / "new.db")

    assert beside.is_dir()
    assert (folder / "new.db").is_file()

"""Every command with each of its files missing, spoilt, of another type, read-only or full."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import Session

from app.db import create_db_engine
from app.repository import MovieRepository
from app.startup import STARTER_MOVIES
from tests.db.test_faults import SmallFileSystem, small_file_system  # noqa: F401 - a fixture
from tests.server import Command, Commands, Finished

RATE = "INSERT INTO rating (movie_id, user_id, score, created_at) VALUES (1, 1, 5, {})"


def changed(*statements: str) -> Callable[[Path], object]:
    """Return a function that changes a database past the service."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


def folder_instead(path: Path) -> None:
    """Put a folder in a file's place."""
    path.unlink()
    path.mkdir()


SPOILT: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "a folder": folder_instead,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("Dear Sir or Madam, " * 1000),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:6000]),
    "a folder for its -wal": lambda path: Path(f"{path}-wal").mkdir(),
    "of another program": changed("DROP TABLE alembic_version"),
    "without movies": changed("DROP TABLE movie"),
    "two revisions": changed("INSERT INTO alembic_version VALUES ('x')"),
    "no revision column": changed("ALTER TABLE alembic_version RENAME COLUMN version_num TO v"),
    "a blob as revision": changed("UPDATE alembic_version SET version_num = x'ff'"),
    "a blob as title": changed("UPDATE movie SET title = x'ff00' WHERE id = 1"),
    "bytes that are not UTF-8": changed(
        "UPDATE movie SET title = CAST(x'ff41' AS TEXT) WHERE id = 1"
    ),
    "no genre": changed("PRAGMA ignore_check_constraints = 1", "UPDATE movie SET genre = x'41'"),
    "no time": changed(RATE.format("'yesterday'")),
    "no day": changed(RATE.format("'2024-02-30 10:00:00.000000'")),
}
COMMANDS = (
    "check",
    "export {folder}/exported",
    "backup {folder}/backup.db",
    "restore {folder}/copy.db",
    "import-movielens {folder}/movielens",
    "migrate",
    "seed",
)


@pytest.fixture
def folder(tmp_path: Path, sqlite_template: Path) -> Path:
    """A folder with a catalogue, a copy of it, and a MovieLens folder."""
    path = tmp_path / "movies.db"
    shutil.copy(sqlite_template, path)
    engine = create_db_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        MovieRepository(session).create_missing(STARTER_MOVIES)
    engine.dispose()
    shutil.copy(path, tmp_path / "copy.db")
    movielens = tmp_path / "movielens"
    movielens.mkdir()
    (movielens / "movies.csv").write_text("movieId,title,genres\n1,Heat (1995),Crime\n")
    (movielens / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,9\n")
    return tmp_path


def run(command: Command, folder: Path, line: str, database: str = "movies.db") -> Finished:
    """Run a command; its exception is the test's failure."""
    return command(f"sqlite:///{folder / database}", *line.format(folder=folder).split())


def complaint(finished: Finished) -> str:
    """Return what is wrong with the end of a command, nothing if an error is explained."""
    is_explained = finished.exit_code in {0, 1} and bool(finished.errors) == bool(
        finished.exit_code
    )
    is_plain = not any(word in finished.errors for word in ("Traceback", "Exception", "Error:"))
    return "" if is_explained and is_plain else f"{finished}"


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_database_is_explained(
    fault: str, line: str, folder: Path, command: Command
) -> None:
    SPOILT[fault](folder / "movies.db")

    finished = run(command, folder, line)

    assert complaint(finished) == ""


@pytest.mark.parametrize("fault", SPOILT)
def test_spoilt_copy_is_not_restored(fault: str, folder: Path, command: Command) -> None:
    before = (folder / "movies.db").read_bytes()
    SPOILT[fault](folder / "copy.db")

    finished = run(command, folder, "restore {folder}/copy.db")

    assert (complaint(finished), finished.exit_code) == ("", 1)
    assert (folder / "movies.db").read_bytes() == before


@pytest.mark.parametrize("fault", ["missing", "a folder", "empty", "text"])
@pytest.mark.parametrize("name", ["movies.csv", "ratings.csv"])
def test_spoilt_file_of_an_import_is_explained(
    name: str, fault: str, folder: Path, command: Command
) -> None:
    SPOILT[fault](folder / "movielens" / name)

    finished = run(command, folder, "import-movielens {folder}/movielens")

    assert (complaint(finished), finished.exit_code) == ("", 1)


@pytest.mark.parametrize("line", ["export {folder}/copy.db", "backup {folder}/copy.db/new.db"])
def test_file_where_a_folder_belongs_is_explained(
    line: str, folder: Path, command: Command
) -> None:
    finished = run(command, folder, line)

    assert (complaint(finished), finished.exit_code) == ("", 1)


@pytest.mark.parametrize("line", COMMANDS)
def test_full_disk_is_named(
    line: str,
    folder: Path,
    command: Command,
    small_file_system: SmallFileSystem,  # noqa: F811 - the fixture
) -> None:
    shutil.copy(folder / "movies.db", small_file_system.folder / "movies.db")
    small_file_system.fill()

    finished = run(command, folder, line, database="disk/movies.db")

    assert (complaint(finished), finished.exit_code) == ("", 1)
    assert "is full" in finished.errors or "No space left on device" in finished.errors


@pytest.mark.slow
def test_export_to_a_disk_that_fills_up_is_one_line(
    folder: Path,
    small_file_system: SmallFileSystem,  # noqa: F811 - the fixture
) -> None:
    changed(
        "INSERT INTO movie (title, search_title, year) WITH RECURSIVE count(n) AS"
        " (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 5000)"
        " SELECT printf('%0300d', n), n, 2000 FROM count"
    )(folder / "movies.db")
    target = small_file_system.folder / "exported"

    commands = Commands(folder, database_url=f"sqlite:///{folder / 'movies.db'}")
    finished = commands.database("export", str(target))

    error = f"Cannot write to {target}: No space left on device\n"
    assert finished == Finished(1, "", error)
    assert [*target.iterdir()] == []

"""``scripts/db.py backup``: a complete copy or none, also during writes."""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier, Event
from typing import NoReturn

import pytest
from sqlmodel import Session

from app.backup.copy import backup
from app.db import create_db_engine
from app.db.migrations import require_schema
from app.errors import SetupError
from app.repository import MovieRepository
from tests.helpers import problems_of, rating_rows
from tests.server import Commands, Finished, wait_until

WRITERS = 2
# One movie and 30 thousand anonymous ratings of 4.
FILL = """
    INSERT INTO movie (id, title, search_title, search_names, sort_title, year, rating_count,
                       rating_sum, average_rating, weighted_rating)
    VALUES (1, 'Heat', 'heat', '| heat | / ', 'heat', 1995, 30000, 120000, 4.0, 120030.0 / 30010);
    INSERT INTO movie_word VALUES ('heat', 1);
    INSERT INTO movie_genre VALUES (1, 'Unknown');
    WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 30000)
    INSERT INTO rating (movie_id, score, created_at) SELECT 1, 4, '2020-01-01 00:00:00' FROM count;
"""


@contextmanager
def ratings_being_written(database_url: str) -> Iterator[list[int]]:
    """Rate with several writers until the end of the block.

    Yields:
        The user ids of the ratings that are stored, which grows.
    """
    # Writers retry SQLite's lock at random, so one may wait long.
    engine = create_db_engine(database_url, busy_timeout=60)
    stored: list[int] = []
    enough = Event()

    def write(first_user_id: int) -> None:
        user_id = first_user_id
        with Session(engine) as session:
            while not enough.is_set():
                MovieRepository(session).add_rating(1, user_id % 5 + 1, user_id)
                stored.append(user_id)
                user_id += WRITERS

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write, first + 1) for first in range(WRITERS)]
        try:
            wait_until(lambda: len(stored) > 20, lambda: "no rating was written")
            yield stored
        finally:
            enough.set()
        for writer in writers:
            writer.result()
    engine.dispose()


def contents(path: Path) -> tuple[set[int], list[str]]:
    """Return the users who have rated in a copy, and its problems."""
    engine = create_db_engine(f"sqlite:///{path}")
    problems = problems_of(engine)
    user_ids = {row["user_id"] for row in rating_rows(engine)} - {None}
    engine.dispose()
    return user_ids, problems


@pytest.fixture
def filled_url(sqlite_url: str, tmp_path: Path) -> str:
    """Return a database that takes a moment to copy."""
    with closing(sqlite3.connect(tmp_path / "movies.db")) as connection:
        connection.executescript(FILL)
    return sqlite_url


def test_copy_taken_during_writes_is_one_snapshot(filled_url: str, tmp_path: Path) -> None:
    copies = {tmp_path / f"copy-{number}.db": set[int]() for number in range(3)}

    with ratings_being_written(filled_url) as stored:
        for copy in copies:
            copies[copy] = set(stored)
            backup(filled_url, copy)

    for copy, stored_before in copies.items():
        copied, problems = contents(copy)
        assert stored_before <= copied
        # A copy with a rating also has the earlier ratings of the same writer.
        for first in range(1, WRITERS + 1):
            own = sorted(user_id for user_id in copied if user_id % WRITERS == first % WRITERS)
            assert own == list(range(first, first + len(own) * WRITERS, WRITERS))
        assert problems == []


@pytest.mark.slow
@pytest.mark.ci
def test_copy_made_by_the_command_during_writes_is_sound(filled_url: str, tmp_path: Path) -> None:
    with ratings_being_written(filled_url):
        finished = Commands(tmp_path, database_url=filled_url).database("backup", "copy.db")

    assert finished == Finished(0, "Copied to copy.db\n", "")
    copied, problems = contents(tmp_path / "copy.db")
    assert copied
    assert problems == []


def test_service_runs_on_a_copy(sqlite_url: str, tmp_path: Path) -> None:
    engine = create_db_engine(sqlite_url)
    with Session(engine) as session:
        movie = MovieRepository(session).create(title="Heat", year=1995)
    engine.dispose()

    backup(sqlite_url, tmp_path / "copy.db")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "movies.db"]
    engine = create_db_engine(f"sqlite:///{tmp_path / 'copy.db'}")
    with Session(engine) as session:
        repository = MovieRepository(session)
        assert repository.list() == [movie]
        repository.add_rating(movie.id, 5, 1)
        assert repository.require(movie.id).rating_count == 1
    engine.dispose()


def test_unusable_source_or_target_is_named_and_nothing_is_written(
    sqlite_url: str, tmp_path: Path
) -> None:
    taken, letters = tmp_path / "taken.db", tmp_path / "letters.txt"
    taken.write_text("my only copy")
    letters.write_text("Dear Sir or Madam, " * 1000)
    copy, long_name = tmp_path / "copy.db", tmp_path / ("n" * 300)
    missing, none = tmp_path / "missing", tmp_path / "none.db"
    cases = [
        (sqlite_url, taken, f"{taken} already exists.\nChoose another file name."),
        (
            sqlite_url,
            missing / "copy.db",
            f"The folder {missing} does not exist.\nCreate it or choose another one.",
        ),
        (sqlite_url, long_name, f"Cannot write {long_name}: File name too long."),
        (
            f"sqlite:///{none}",
            copy,
            f"There is no database at {none}.\nRun: uv run python scripts/db.py migrate",
        ),
        (f"sqlite:///{letters}", copy, f"{letters} is not a SQLite database."),
        (
            "postgresql+psycopg://postgres@127.0.0.1/test",
            copy,
            "Only SQLite databases can be copied. For PostgreSQL, run pg_dump",
        ),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    for source, target, message in cases:
        with pytest.raises(SetupError, match=f"^{re.escape(message)}"):
            backup(source, target)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_first_of_two_copies_to_one_file_stays(sqlite_url: str, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    both = Barrier(2)

    def copy(_number: int) -> str:
        both.wait()
        try:
            backup(sqlite_url, target)
        except SetupError as error:
            return str(error)
        return "copied"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(copy, range(2)))

    assert outcomes == [f"{target} already exists.\nChoose another file name.", "copied"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "movies.db"]


@pytest.fixture
def _no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the file system refuse hard links, as FAT does."""

    def refuse(_source: object, target: Path, **_: object) -> NoReturn:
        if Path(target).exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("_no_hard_links")
def test_file_system_without_hard_links_gets_a_complete_copy(
    filled_url: str, tmp_path: Path
) -> None:
    backup(filled_url, tmp_path / "copy.db")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "movies.db"]
    assert contents(tmp_path / "copy.db") == (set(), [])


@pytest.mark.usefixtures("_no_hard_links")
def test_without_hard_links_a_new_file_is_not_overwritten(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy.db"
    refuse = os.link

    def come_first(source: object, target: Path, **options: object) -> None:
        try:
            refuse(source, target, **options)  # type: ignore[arg-type] # the fixture's
        finally:
            target.write_text("my only copy")

    monkeypatch.setattr(os, "link", come_first)

    with pytest.raises(SetupError, match="already exists"):
        backup(sqlite_url, target)

    assert target.read_text() == "my only copy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "movies.db"]


def test_unfinished_copy_does_not_block_the_next(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "copy.db.unfinished").write_text("half")

    backup(sqlite_url, tmp_path / "copy.db")

    engine = create_db_engine(f"sqlite:///{tmp_path / 'copy.db'}")
    with engine.connect() as connection:
        require_schema(connection)
    engine.dispose()

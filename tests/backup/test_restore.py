"""``scripts/db.py restore``: a copy replaces the database completely or not at all."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import make_url
from sqlmodel import Session

from app.backup.copy import backup
from app.backup.restore import restore
from app.config import PROJECT_ROOT
from app.db import create_db_engine
from app.errors import SetupError
from app.repository import MovieRepository
from tests.server import Commands, alembic_config, running_server


def titles(path: Path) -> list[str]:
    """Return the titles in a database, read without changing it."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return [title for (title,) in database.execute("SELECT title FROM movie ORDER BY id")]


def add(path: Path, title: str) -> None:
    """Store a movie."""
    engine = create_db_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        MovieRepository(session).create(title=title, year=2000)
    engine.dispose()


@pytest.fixture
def database(sqlite_url: str) -> Path:
    """Return a database with a movie that its copy lacks."""
    path = Path(str(make_url(sqlite_url).database))
    add(path, "Copied")
    backup(sqlite_url, path.with_name("copy.db"))
    add(path, "Later")
    return path


@pytest.fixture
def copy(database: Path) -> Path:
    """Return a copy of the database from before its last movie."""
    return database.with_name("copy.db")


@pytest.fixture
def user(database: Path) -> Iterator[sqlite3.Connection]:
    """Yield an idle connection of another process, like a server's between two requests."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("SELECT * FROM movie").fetchall()
        yield connection


def test_copy_replaces_the_database_with_its_permissions_and_stays_unchanged(
    database: Path, copy: Path
) -> None:
    before = copy.read_bytes()
    database.chmod(0o600)

    restore(f"sqlite:///{database}", copy)

    assert sorted(path.name for path in database.parent.iterdir()) == ["copy.db", "movies.db"]
    assert titles(database) == ["Copied"]
    assert database.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes() == before


def test_copy_replaces_a_missing_or_foreign_file_and_its_wal(database: Path, copy: Path) -> None:
    cases: list[list[str]] = [[], [""], ["-wal", "-shm"]]
    for suffixes in cases:
        database.unlink()
        for suffix in suffixes:
            Path(f"{database}{suffix}").write_bytes(b"overwritten by mistake, " * 500)

        restore(f"sqlite:///{database}", copy)

        assert sorted(path.name for path in database.parent.iterdir()) == ["copy.db", "movies.db"]
        assert titles(database) == ["Copied"]


@pytest.mark.usefixtures("user")
def test_open_database_is_not_replaced(database: Path, copy: Path) -> None:
    with pytest.raises(SetupError, match=r"has .* open, nothing was restored"):
        restore(f"sqlite:///{database}", copy)

    assert titles(database) == ["Copied", "Later"]


@pytest.mark.slow
@pytest.mark.ci
def test_database_of_a_running_server_is_not_replaced(
    database: Path, copy: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{database}"
    with running_server(tmp_path, database_url=url) as server, server.client() as client:
        refused = Commands(tmp_path, database_url=url).database("restore", str(copy))
        assert client.get("/movies?sort=id").json()[1]["title"] == "Later"
    done = Commands(tmp_path, database_url=url).database("restore", str(copy))

    assert (refused.exit_code, len(refused.errors.splitlines())) == (1, 2)
    assert (done.exit_code, done.output) == (0, f"Restored {copy}. Database sound\n")
    assert titles(database) == ["Copied"]


def test_older_copy_is_migrated(database: Path, copy: Path) -> None:
    engine = create_db_engine(f"sqlite:///{copy}")
    config = alembic_config(PROJECT_ROOT)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MOVIE_DATABASE_URL", f"sqlite:///{copy}")
        command.downgrade(config, "-1")
    engine.dispose()
    with closing(sqlite3.connect(copy)) as connection:
        [older] = connection.execute("SELECT version_num FROM alembic_version").fetchone()

    revisions = [restore(f"sqlite:///{database}", copy), restore(f"sqlite:///{copy}", database)]

    assert revisions == [older, None]
    assert titles(database) == titles(copy) == ["Copied"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("UPDATE movie SET rating_count = 1, average_rating = 3, rating_sum = 3", "aggregates"),
        ("DROP INDEX ix_movie_year_id", "ix_movie_year_id is missing"),
        ("DROP TABLE alembic_version", "not a database of this service"),
        ("UPDATE alembic_version SET version_num = 'ffff'", "newer version"),
        ("", r"incomplete without copy\.db-wal"),
    ],
)
def test_unsound_copy_is_refused(database: Path, copy: Path, damage: str, reason: str) -> None:
    if damage:
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute(damage)
            connection.commit()
    else:
        shutil.copy(copy, f"{copy}-wal")

    with pytest.raises(SetupError, match=reason):
        restore(f"sqlite:///{database}", copy)

    assert titles(database) == ["Copied", "Later"]


def test_restore_that_fails_before_the_swap_leaves_the_database_unchanged(
    database: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)

    with pytest.raises(SetupError, match="No space left"):
        restore(f"sqlite:///{database}", copy)

    assert sorted(path.name for path in database.parent.iterdir()) == ["copy.db", "movies.db"]
    assert titles(database) == ["Copied", "Later"]


def test_restore_on_postgresql_refers_to_its_tools(copy: Path) -> None:
    with pytest.raises(SetupError, match="pg_restore"):
        restore("postgresql+psycopg://nobody@127.0.0.1/nothing", copy)


def test_sqlite_replays_the_wal_of_another_file(
    tmp_path: Path,
) -> None:
    paths = tmp_path / "one.db", tmp_path / "other.db"
    for path in paths:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE movie (id INTEGER PRIMARY KEY, title)")
    with closing(sqlite3.connect(paths[0])) as database:
        database.execute("INSERT INTO movie (title) VALUES ('Of the one')")
        database.commit()
        shutil.copy(f"{paths[0]}-wal", f"{paths[1]}-wal")

    assert titles(paths[1]) == ["Of the one"]

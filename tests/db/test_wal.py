"""SQLite's -wal shrinks after it has grown."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import Session

from app.db import create_db_engine
from app.limits import Limits
from app.movielens.commands import import_movielens
from app.repository import MovieRepository

LIMIT = 256 * 1024


def wal_bytes(url: str) -> int:
    """Return the size of a database's -wal."""
    return Path(f"{url.removeprefix('sqlite:///')}-wal").stat().st_size


@pytest.mark.ci
def test_wal_shrinks_after_a_long_reader_has_left(sqlite_url: str) -> None:
    engine = create_db_engine(sqlite_url, limits=Limits(wal_bytes=LIMIT))
    with Session(engine) as session:
        repository = MovieRepository(session)
        movie = repository.create(title="Heat", year=1995)
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM movie").fetchall()
            while wal_bytes(sqlite_url) < 20 * LIMIT:
                repository.add_rating(movie.id, 5, user_id=1)
        # The first copies the -wal into the file, the second restarts the -wal.
        for user_id in (2, 3):
            repository.add_rating(movie.id, 5, user_id=user_id)
    after = wal_bytes(sqlite_url)
    engine.dispose()

    assert after <= LIMIT


def test_import_leaves_an_empty_wal_to_a_running_service(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", sqlite_url)
    rows = [f"{number},Heat {number} (1995),Crime" for number in range(1, 1001)]
    (tmp_path / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows]))
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703")
    service = create_db_engine(sqlite_url)
    with Session(service) as session:
        MovieRepository(session).create(title="Heat", year=1995)

        import_movielens(tmp_path)

    after = wal_bytes(sqlite_url)
    service.dispose()
    assert after == 0

"""``scripts/db.py check`` finds each stored value that reads cannot handle."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlmodel import Session

from app.checks import data_problems
from app.db import create_db_engine
from tests.databases import ENGINES, new_database
from tests.helpers import HEAT, RONIN, store
from tests.server import Command

TIME = "'2026-01-31 12:00:00.000000'"
RATE = "INSERT INTO rating (id, movie_id, user_id, score, created_at) VALUES "
INVALID_TIME = "rating: 1 row(s) with an invalid created_at"
ON_BOTH = {
    f"{RATE} (7, 9, 1, 5, {TIME})": "rating: 1 row(s) whose movie_id is of no movie, the first",
    "INSERT INTO neighbour VALUES (1, 9, 1.5)": (
        "neighbour: 1 row(s) whose neighbour_id is of no movie, the first with movie_id 1"
    ),
    f"{RATE} (7, 1, 0, 5, {TIME})": "rating: 1 row(s) with an invalid user_id, the first with id 7",
    "UPDATE movie SET year = 1 WHERE id = 2": (
        "movie: 1 row(s) against ck_movie_year_range, the first with id 2"
    ),
    "UPDATE movie SET genre = NULL WHERE id = 2": "movie: 1 row(s) with an invalid genre",
    "UPDATE movie SET title = 'Heat' WHERE id = 2": "movie: 1 value(s) of title are in several",
}
ON_ONE = {
    "sqlite": {
        f"{RATE} (7, 1, 1, 5, 'yesterday')": INVALID_TIME,
        f"{RATE} (7, 1, 1, 5, '2024-02-30 10:00:00')": INVALID_TIME,
        f"{RATE} (7, 1, 1, 5, '0000-01-01 00:00:00')": INVALID_TIME,
        f"{RATE} (7, 1, 1, 5, 1769860800)": INVALID_TIME,
        f"{RATE} (7, 1, 'x', 5, {TIME})": "rating: 1 row(s) with an invalid user_id",
        "UPDATE movie SET title = x'ff' WHERE id = 2": "movie: 1 row(s) with an invalid title",
        "UPDATE movie SET tmdb_id = 'x' WHERE id = 2": "movie: 1 row(s) with an invalid tmdb_id",
    },
    "postgresql": {
        f"{RATE} (7, 1, 1, 5, 'infinity')": INVALID_TIME,
        f"{RATE} (7, 1, 1, 5, '0044-03-15 BC')": INVALID_TIME,
    },
}


@pytest.fixture(params=ENGINES)
def unconstrained(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The engine of a database with two movies, whose tables have columns and nothing else."""
    with new_database(request.param, tmp_path, migrated=True) as url:
        engine = create_db_engine(url)
        store(engine, HEAT, RONIN)
        plain = create_engine(url)
        with plain.begin() as connection:
            for table in ("neighbour", "movie_word", "movie_genre", "rating", "movie"):
                connection.execute(text(f"CREATE TABLE copy AS SELECT * FROM {table}"))  # noqa: S608 - the test's names
                connection.execute(text(f"DROP TABLE {table}"))
                connection.execute(text(f"ALTER TABLE copy RENAME TO {table}"))
        plain.dispose()
        yield engine
        engine.dispose()


def test_each_wrong_value_is_named(unconstrained: Engine) -> None:
    with Session(unconstrained) as session:
        assert [*data_problems(session)] == []
        missed = {}
        for change, line in (ON_BOTH | ON_ONE[unconstrained.dialect.name]).items():
            session.execute(text(change))
            found = [*data_problems(session)]
            if not any(problem.startswith(line) for problem in found):
                missed[change] = found
            session.rollback()

    assert missed == {}


def test_damaged_file_is_reported_and_nothing_else(sqlite_url: str, command: Command) -> None:
    path = str(make_url(sqlite_url).database)
    engine = create_db_engine(sqlite_url)
    store(engine, HEAT, RONIN)
    engine.dispose()
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_movie_year_id'"
        [page] = database.execute(query).fetchone()
        [size] = database.execute("PRAGMA page_size").fetchone()
    content = bytearray(Path(path).read_bytes())
    # An index without entries: no read fails, and some return nothing.
    content[(page - 1) * size + 3 : (page - 1) * size + 5] = bytes(2)
    Path(path).write_bytes(content)

    finished = command(sqlite_url, "check")

    assert (finished.exit_code, finished.output) == (1, "")
    assert finished.errors.startswith("the file is damaged: ")


def test_seeding_again_takes_no_ids(sqlite_url: str, command: Command) -> None:
    for _ in range(3):
        command(sqlite_url, "seed")

    with closing(sqlite3.connect(str(make_url(sqlite_url).database))) as database:
        [last] = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'movie'").fetchone()
    assert last == 5

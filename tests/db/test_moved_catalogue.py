"""A catalogue that another tool has moved: other names of constraints, none, or no sequences."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from app.config import Settings
from app.db import create_db_engine, migrate
from app.errors import SetupError
from app.main import create_app
from app.repository import MovieRepository
from tests.databases import ENGINES, new_database
from tests.helpers import HEAT, RONIN, store

# Unique, as the service needs it, but not by constraints of its names: on SQLite an index on an
# expression, of which it reports the name.
RENAMED = {
    "postgresql": "ALTER TABLE movie DROP CONSTRAINT uq_movie_{0};"
    "CREATE UNIQUE INDEX idx_16385_{0} ON movie ({0})",
    "sqlite": "CREATE UNIQUE INDEX idx_16385_{0} ON movie ({0} || '')",
}


@pytest.fixture(params=ENGINES)
def moved(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The engine of a database with Heat, which has both external ids, and Ronin."""
    with new_database(request.param, tmp_path, migrated=True) as url:
        engine = create_db_engine(url)
        store(engine, HEAT, RONIN)
        execute(engine, "UPDATE movie SET imdb_id = 'tt0113277', tmdb_id = 949 WHERE id = 1")
        yield engine
        engine.dispose()


@pytest.fixture
def client(moved: Engine) -> Iterator[TestClient]:
    """A client of the service on it."""
    url = moved.url.render_as_string(hide_password=False)
    with TestClient(
        create_app(Settings(database_url=url)), raise_server_exceptions=False
    ) as client:
        yield client


def execute(engine: Engine, statements: str) -> None:
    """Change the database past the service."""
    plain = create_engine(engine.url)
    with plain.begin() as connection:
        for statement in statements.split(";"):
            connection.execute(text(statement))
    plain.dispose()


@pytest.mark.parametrize(
    ("request_line", "body", "detail"),
    [
        ("POST /movies", {"title": "Heat", "year": 2000}, "A movie with this title"),
        ("PATCH /movies/2", {"title": "Heat"}, "A movie with this title"),
        (
            "POST /movies",
            {"title": "New", "year": 2000, "imdb_id": "tt0113277"},
            "A movie with this imdb_id already exists: tt0113277",
        ),
        ("PATCH /movies/2", {"tmdb_id": 949}, "A movie with this tmdb_id already exists: 949"),
    ],
)
def test_duplicate_is_recognized_by_the_stored_movies(
    moved: Engine, client: TestClient, request_line: str, body: dict[str, Any], detail: str
) -> None:
    for column in ("title", "imdb_id", "tmdb_id"):
        execute(moved, RENAMED[moved.dialect.name].format(column))

    response = client.request(*request_line.split(), json=body)

    assert response.status_code == 409
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize("failures", [1, 2])
def test_write_is_tried_twice_if_no_movie_has_its_title_any_more(
    moved: Engine, failures: int
) -> None:
    left = [failures]

    @event.listens_for(moved, "before_cursor_execute")
    def fail(*arguments: Any) -> None:  # noqa: ANN401 - the event's arguments
        if "INSERT INTO movie " in arguments[2] and left[0]:
            left[0] -= 1
            # As if another writer had stored the title, and deleted it again.
            arguments[1].execute(
                "INSERT INTO movie (title, search_title, year) VALUES ('Heat', 'heat', 1995)"
            )

    with Session(moved) as session:
        repository = MovieRepository(session)
        if failures == 1:
            assert repository.create(title="New", year=2000).title == "New"
        else:
            with pytest.raises(IntegrityError):
                repository.create(title="New", year=2000)
        titles = [movie.title for movie in repository.list()]

    assert titles == ["Heat", *(["New"] if failures == 1 else []), "Ronin"]


def test_ready_lists_differences_that_the_service_works_without(
    moved: Engine, client: TestClient
) -> None:
    assert client.get("/ready").json() == {"status": "ok"}
    execute(moved, "DROP INDEX ix_movie_year_id")

    response = client.get("/ready")

    assert response.status_code == 200
    [difference] = response.json()["differences"]
    assert difference.startswith("movie: index ix_movie_year_id is missing")


def test_ready_names_a_missing_column(moved: Engine, client: TestClient) -> None:
    execute(moved, "ALTER TABLE rating RENAME COLUMN created_at TO made_at")

    response = client.get("/ready")

    assert response.status_code == 503
    assert "rating: column created_at is missing" in response.json()["detail"]


@pytest.mark.parametrize("moved", [e for e in ENGINES if e != "sqlite"], indirect=True)
def test_ready_and_check_name_a_missing_sequence_and_its_fix(
    moved: Engine, client: TestClient
) -> None:
    execute(moved, "ALTER TABLE rating ALTER id DROP DEFAULT; DROP SEQUENCE rating_id_seq")

    refused = client.get("/ready")
    rated = client.post("/ratings", json={"movie_id": 1, "score": 5})
    line = refused.json()["detail"].splitlines()[1]
    execute(moved, line.partition("Run in psql: ")[2].rstrip(";"))

    assert line.startswith("rating: the sequence of column id is missing.")
    assert (refused.status_code, rated.status_code) == (503, 503)
    assert rated.json()["detail"].startswith("An id sequence is missing")
    assert client.post("/ratings", json={"movie_id": 1, "score": 5}).status_code == 204
    assert client.get("/ready").json() == {"status": "ok"}


def test_database_of_another_program_is_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE note (id INTEGER PRIMARY KEY)")
    before = path.read_bytes()

    with pytest.raises(SetupError, match="tables of another program"):
        migrate(f"sqlite:///{path}")

    assert path.read_bytes() == before

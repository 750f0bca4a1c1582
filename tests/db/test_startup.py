"""The service prepares its database at start-up, or explains the problem and changes nothing."""

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, event, make_url, text

from app.config import PROJECT_ROOT, Settings
from app.dependencies import service_of
from app.errors import SetupError
from app.main import create_app
from app.startup import STARTER_MOVIES
from tests.databases import ENGINES, new_database
from tests.db.race import ACTIONS
from tests.rows import Rows, all_rows
from tests.server import DEADLINE_SECONDS, Commands

STARTER_TITLES = [
    "Black Panther",
    "The Godfather",
    "Inception",
    "The Matrix",
    "Spirited Away",
]


def serve(url: str, *, auto_setup: bool = True, busy_timeout: float = 5.0) -> TestClient:
    """Return a client, which starts the service when it is entered."""
    settings = Settings(database_url=url, auto_setup=auto_setup, busy_timeout=busy_timeout)
    return TestClient(create_app(settings))


def rows(url: str) -> Rows:
    """Return all rows of a database."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = all_rows(connection)
    engine.dispose()
    return found


def execute(url: str, statement: str) -> None:
    """Change a database outside the service."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_new_database_gets_the_schema_and_the_starter_movies(new_url: str) -> None:
    with serve(new_url) as client:
        movies = client.get("/movies").json()
        ready = client.get("/ready")

    assert [movie["title"] for movie in movies] == STARTER_TITLES
    assert {(movie["title"], movie["year"], movie["genre"]) for movie in movies} == {
        (movie.title, movie.year, movie.genre) for movie in STARTER_MOVIES
    }
    assert (ready.status_code, ready.json()) == (200, {"status": "ok"})


def test_catalogue_with_movies_is_left_unchanged(new_url: str) -> None:
    with serve(new_url) as client:
        for movie in client.get("/movies").json()[1:]:
            client.delete(f"/movies/{movie['id']}")
        client.post("/ratings", json={"movie_id": 5, "user_id": 1, "score": 4})
    before = rows(new_url)

    with serve(new_url) as client:
        movies = client.get("/movies").json()

    assert [movie["title"] for movie in movies] == ["Black Panther"]
    assert rows(new_url) == before


def test_start_after_a_downgrade_upgrades_the_schema_to_head(
    new_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", new_url)
    with serve(new_url) as client:
        client.post("/ratings", json={"movie_id": 1, "user_id": 1, "score": 4})
    before = rows(new_url)
    command.downgrade(Config(PROJECT_ROOT / "alembic.ini"), "-1")
    assert rows(new_url) != before

    with serve(new_url) as client:
        ready = client.get("/ready")

    assert ready.status_code == 200
    assert rows(new_url) == before


def test_creating_the_application_opens_no_database(tmp_path: Path) -> None:
    create_app(Settings(database_url=f"sqlite:///{tmp_path / 'none.db'}"))

    assert list(tmp_path.iterdir()) == []


def test_without_auto_setup_a_database_at_head_is_served_unchanged(database_url: str) -> None:
    with serve(database_url, auto_setup=False) as client:
        assert client.get("/movies").json() == []
        assert client.get("/ready").status_code == 200


def test_without_auto_setup_an_older_schema_is_refused(
    new_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", new_url)
    command.upgrade(Config(PROJECT_ROOT / "alembic.ini"), "head")
    command.downgrade(Config(PROJECT_ROOT / "alembic.ini"), "-1")
    before = rows(new_url)

    with (
        pytest.raises(SetupError, match=r"\nRun: uv run alembic upgrade head$"),
        serve(new_url, auto_setup=False),
    ):
        pass

    assert rows(new_url) == before


@pytest.mark.parametrize("engine_name", ENGINES)
def test_without_auto_setup_a_database_without_a_schema_is_refused(
    engine_name: str, tmp_path: Path
) -> None:
    with (
        new_database(engine_name, tmp_path) as url,
        pytest.raises(SetupError, match=r"\nRun: uv run \S+"),
        serve(url, auto_setup=False),
    ):
        pass

    assert list(tmp_path.iterdir()) == []


def test_ready_reports_a_schema_that_was_downgraded(
    new_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", new_url)
    with serve(new_url) as client:
        command.downgrade(Config(PROJECT_ROOT / "alembic.ini"), "-1")

        ready, health = client.get("/ready"), client.get("/health")

    assert ready.status_code == 503
    assert "uv run alembic upgrade head" in ready.json()["detail"]
    assert health.json() == {"status": "ok"}


@pytest.mark.parametrize("auto_setup", [True, False])
def test_database_of_a_newer_version_is_refused_and_left_unchanged(
    auto_setup: bool,  # noqa: FBT001 - a parameter of the test
    new_url: str,
) -> None:
    with serve(new_url):
        pass
    execute(new_url, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = rows(new_url)

    with (
        pytest.raises(SetupError, match=r"ffffffffffff.*\n.*newer version"),
        serve(new_url, auto_setup=auto_setup),
    ):
        pass

    assert rows(new_url) == before


@pytest.mark.parametrize("auto_setup", [True, False])
def test_file_that_is_not_a_database_is_refused_and_left_unchanged(
    auto_setup: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    path = tmp_path / "notes.db"
    path.write_text("These are notes, and no database.\n" * 50)

    with (
        pytest.raises(SetupError, match=f"^{path} is not a SQLite database"),
        serve(f"sqlite:///{path}", auto_setup=auto_setup),
    ):
        pass

    assert path.read_text() == "These are notes, and no database.\n" * 50
    assert list(tmp_path.iterdir()) == [path]


def test_start_on_a_locked_database_names_it(sqlite_url: str) -> None:
    path = str(make_url(sqlite_url).database)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    with (
        pytest.raises(SetupError, match=f"^Another process keeps {path} locked"),
        serve(sqlite_url, busy_timeout=0.1),
    ):
        pass

    holder.close()


@pytest.mark.parametrize("hold", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_start_waits_for_a_locked_new_database(hold: str, tmp_path: Path) -> None:
    path = tmp_path / "movies.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute(hold)
    app = create_app(Settings(database_url=f"sqlite:///{path}", busy_timeout=60))
    connecting = threading.Event()
    event.listen(service_of(app).database.engine, "do_connect", lambda *_: connecting.set())

    def start() -> list[str]:
        with TestClient(app) as client:
            return [movie["title"] for movie in client.get("/movies").json()]

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(start)
        assert connecting.wait(DEADLINE_SECONDS)
        # Long enough to meet the lock. A slower service finds no lock, and passes, too.
        wait([started], timeout=0.1)
        started_too_early = started.done()
        holder.close()
        titles = started.result()

    assert not started_too_early
    assert titles == STARTER_TITLES


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("engine_name", ENGINES)
def test_processes_that_start_on_no_database_at_once_all_succeed(
    engine_name: str, tmp_path: Path
) -> None:
    # Collisions of file locks are rare, so SQLite, whose databases cost nothing, gets more rounds.
    rounds = 4 if engine_name == "sqlite" else 2
    with ExitStack() as stack:
        databases = [
            stack.enter_context(new_database(engine_name, tmp_path)) for _ in range(rounds)
        ]

        finished = Commands(tmp_path).python(
            str(PROJECT_ROOT / "tests" / "db" / "race.py"), *databases
        )

        assert finished.exit_code == 0, finished.errors
        outcomes = json.loads(finished.output)
        assert outcomes == [["ok"] * len(ACTIONS)] * rounds
        for url in databases:
            with serve(url, auto_setup=False):  # fails unless the schema is at head
                assert [row["title"] for row in rows(url)["movie"]] == [
                    movie.title for movie in STARTER_MOVIES
                ]

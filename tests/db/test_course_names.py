"""Code written for the course runs here: its names in app.db, its fixtures, its conftest."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, StaticPool, text
from sqlmodel import Session, SQLModel, create_engine, select

import app.db
from app.main import app as service
from app.models import Movie, Rating
from tests.server import Commands, copy_with_tests

# A lab sheet's script, which uses everything that it imports from app.db.
SCRIPT = """
import os
from sqlmodel import Session
from app.db import DATABASE_URL, engine, get_session, init_db
from app.repository import MovieRepository

assert str(engine.url) == DATABASE_URL
assert not os.path.exists(engine.url.database)
init_db()
with Session(engine) as session:
    repository = MovieRepository(session)
    movie = repository.create(title="Arrival", year=2016, genre="Sci-Fi")
    repository.add_rating(movie.id, score=5, user_id=1)
    print(repository.get(movie.id).average_rating, len(repository.list()), get_session)
"""

# Conftests that replace the project's.
OVERRIDE = """
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, SQLModel, create_engine

from app.db import get_session
from app.main import app

engine = create_engine("sqlite:///./test_movies.db", connect_args={"check_same_thread": False})


def get_test_session():
    with Session(engine) as session:
        yield session


app.dependency_overrides[get_session] = get_test_session


@pytest.fixture(autouse=True)
def tables():
    SQLModel.metadata.drop_all(engine)
    SQLModel.metadata.create_all(engine)


@pytest.fixture
def client():
    with TestClient(app) as client:
        yield client


@pytest.fixture
def session():
    with Session(engine) as session:
        yield session
"""
ENGINE = """
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, create_engine

import app.db
from app.main import app as service


@pytest.fixture
def engine(monkeypatch, tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    monkeypatch.setattr("app.db.engine", engine)
    app.db.init_db()
    yield engine
    engine.dispose()


@pytest.fixture
def client(engine):
    return TestClient(service)


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session
"""
NAMES = """
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, delete

from app.db import DATABASE_URL, engine, get_session, init_db
from app.main import app
from app.models import Movie, Rating


@pytest.fixture
def session():
    init_db()
    with Session(engine) as session:
        session.exec(delete(Rating))
        session.exec(delete(Movie))
        session.commit()
        yield session


@pytest.fixture
def client(session):
    return TestClient(app)
"""
# Two files whose tests create the same titles, as they may on separate databases.
TESTS = """
from sqlmodel import select

from app.models import Rating
from app.repository import MovieRepository


def test_client(client):
    movie = client.post("/movies", json={"title": "Arrival", "year": 2016}).json()
    client.post("/ratings", json={"movie_id": movie["id"], "user_id": 1, "score": 5})

    assert client.get(f"/movies/{movie['id']}").json()["average_rating"] == 5
    assert [movie["title"] for movie in client.get("/movies").json()] == ["Arrival"]


def test_repository(session):
    repository = MovieRepository(session)
    movie = repository.create(title="Arrival", year=2016, genre="Sci-Fi")
    repository.add_rating(movie.id, score=4, user_id=1)

    assert repository.get(movie.id).average_rating == 4
    assert [movie.title for movie in repository.list()] == ["Arrival"]
    assert repository.get(movie.id + 1) is None


def test_session(session):
    movie = MovieRepository(session).create(title="Arrival", year=2016, genre="Sci-Fi")
    session.add(Rating(movie_id=movie.id, score=3, user_id=1))
    session.commit()

    assert session.exec(select(Rating.score)).all() == [3]
"""


def in_memory() -> Engine:
    """Return an engine of one connection, which all threads share."""
    return create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )


@pytest.mark.slow
@pytest.mark.ci
def test_names_of_the_course_work_in_a_script_and_open_no_database_when_imported(
    tmp_path: Path,
) -> None:
    database_url = f"sqlite:///{tmp_path / 'movies.db'}"

    finished = Commands(tmp_path, database_url=database_url).python("-c", SCRIPT)

    assert finished.errors == ""
    assert finished.output.startswith("5.0 1 <function get_session ")


def create_tables() -> None:
    """Prepare the database as most sheets do."""
    SQLModel.metadata.create_all(app.db.engine)


def do_nothing() -> None:
    """Let the application create the schema."""


@pytest.mark.parametrize(
    ("prepare", "runs"),
    [
        (app.db.init_db, True),
        (app.db.init_db, False),
        (create_tables, True),
        (create_tables, False),
        (do_nothing, True),
    ],
)
def test_application_uses_the_engine_that_replaces_its_own(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[], None], *, runs: bool
) -> None:
    engine = in_memory()
    monkeypatch.setattr("app.db.engine", engine)
    prepare()
    client = TestClient(service)

    def rate() -> object:
        movie = client.post("/movies", json={"title": "Arrival", "year": 2016}).json()
        client.post("/ratings", json={"movie_id": movie["id"], "user_id": 1, "score": 5})
        return client.get("/movies").json()[0]["average_rating"]

    with client if runs else nullcontext():
        assert rate() == 5

    with Session(engine) as session:
        movie = session.exec(select(Movie)).one()
        session.add(Rating(movie=movie, score=1, user_id=2))
        session.commit()
        assert [rating.score for rating in movie.ratings] == [5, 1]
    engine.dispose()


def test_init_db_upgrades_a_replaced_engine_to_head_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = in_memory()
    monkeypatch.setattr("app.db.engine", engine)

    app.db.init_db()
    app.db.init_db()

    with Session(engine) as session:
        assert app.db.schema_problems(session) == []
        session.connection().execute(text("SELECT version_num FROM alembic_version")).one()
    engine.dispose()


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("conftest", [OVERRIDE, ENGINE, NAMES], ids=["override", "engine", "names"])
def test_conftest_of_the_course_passes_every_time_and_leaves_the_users_database_unchanged(
    tmp_path: Path, conftest: str
) -> None:
    project = copy_with_tests(tmp_path)
    database = project / "movies.db"
    shell = Commands(project, project, database_url=f"sqlite:///{database}")
    assert shell.database("seed").exit_code == 0
    before = database.read_bytes()
    (project / "tests" / "conftest.py").write_text(conftest)
    (project / "tests" / "__init__.py").write_text("")
    for name in ("test_movies.py", "test_ratings.py"):
        (project / "tests" / name).write_text(TESTS)

    finished = [shell.python("-m", "pytest", "-q") for _ in range(2)]

    for run in finished:
        assert run.exit_code == 0, run.output + run.errors
        assert "6 passed" in run.output
    assert database.read_bytes() == before
    assert {path.name for path in project.rglob("*.db*")} <= {"movies.db", "test_movies.db"}

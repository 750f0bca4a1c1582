"""Every error has one response: its own, its nearest ancestor's, or a 500 for unexpected ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from app.config import Settings
from app.db import create_db_engine
from app.dependencies import get_repository
from app.errors import MovieServiceError, UnusableFile
from app.http.errors import ERROR_RESPONSES
from app.main import create_app
from app.repository import MovieRepository
from tests.databases import ENGINES, new_database
from tests.helpers import Sample, movie_rows, store

INTERNAL = {"detail": "Internal server error"}


def descendants(kind: type[MovieServiceError]) -> Iterator[type[MovieServiceError]]:
    """Yield all subclasses of an error, directly or indirectly."""
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


KINDS = sorted({*descendants(MovieServiceError)} - {UnusableFile}, key=lambda kind: kind.__name__)


class Raising(MovieRepository):
    """A repository whose reads raise an error."""

    def __init__(self, error: Exception) -> None:
        """Take no session."""
        self._error = error

    def require(self, _movie_id: int) -> NoReturn:
        """Raise."""
        raise self._error


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return only SQLite: a repository raises the same errors on both engines."""
    return sqlite_url


def answer(app: FastAPI, error: Exception, **headers: str) -> Response:
    """Return the response to an error that a route raises."""
    app.dependency_overrides[get_repository] = lambda: Raising(error)
    client = TestClient(app, raise_server_exceptions=False)
    return client.get("/movies/1", headers={"X-Trace-Id": "mine", **headers})


def test_error_has_the_response_of_its_nearest_ancestor_and_is_never_a_500(app: FastAPI) -> None:
    for kind in KINDS:
        child: type[MovieServiceError] = type("Child", (kind,), {})
        grandchild: type[MovieServiceError] = type("Grandchild", (child,), {})

        # Skip __init__, whose arguments differ.
        own, *others = [
            answer(app, each.__new__(each, "The reason")) for each in (kind, child, grandchild)
        ]

        assert own.status_code != 500, kind
        if kind in ERROR_RESPONSES:
            expected = ERROR_RESPONSES[kind]
            assert own.status_code == expected.status, kind
            assert own.json() == {"detail": expected.detail or "The reason"}
            sent = {name: own.headers[name] for name in expected.headers}
            assert sent == dict(expected.headers), kind
        for other in others:
            assert (other.status_code, other.content) == (own.status_code, own.content), kind
            assert other.headers == own.headers, kind


def test_unexpected_error_is_a_500_and_reaches_the_server_log(app: FastAPI) -> None:
    error = UnusableFile("ratings.csv, line 2: a secret")
    response = answer(app, error)

    assert (response.status_code, response.json()) == (500, INTERNAL)
    with pytest.raises(UnusableFile):
        TestClient(app).get("/movies/1")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:5174", "http://localhost:5174"),
        ("https://elsewhere.example", None),
        (None, None),
    ],
)
def test_500_can_be_read_by_allowed_origins(
    app: FastAPI, origin: str | None, allowed: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}

    response = answer(app, RuntimeError("a secret"), **headers)

    assert (response.status_code, response.json()) == (500, INTERNAL)
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Trace-Id"] == "mine"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Connection"] == "close"
    assert response.headers.get("Access-Control-Allow-Origin") == allowed
    exposed = response.headers.get("Access-Control-Expose-Headers", "")
    assert ("X-Trace-Id" in exposed) == (origin is not None)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_other_constraints_are_not_reported_as_duplicate_title(
    tmp_path: Path, engine_name: str
) -> None:
    with new_database(engine_name, tmp_path, migrated=True) as url:
        engine = create_db_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE UNIQUE INDEX somebodys ON movie (year)")
            connection.exec_driver_sql("CREATE UNIQUE INDEX another ON movie (lower(genre))")
        store(engine, Sample("Heat", 1995, "Crime"), Sample("Alien", 1979, "Sci-Fi"))
        before = movie_rows(engine)
        app = create_app(Settings(database_url=url, auto_setup=False))
        with TestClient(app, raise_server_exceptions=False) as client:
            answers = [
                client.post("/movies", json={"title": "Ronin", "year": 1995, "genre": "Action"}),
                client.post("/movies", json={"title": "Ronin", "year": 1998, "genre": "Crime"}),
                client.put("/movies/2", json={"title": "Ronin", "year": 1995, "genre": "Action"}),
                client.patch("/movies/2", json={"genre": "Crime"}),
            ]
            same_title = client.post("/movies", json={"title": "Heat", "year": 1998})
        with Session(engine) as session, pytest.raises(IntegrityError):
            MovieRepository(session).create(title="Ronin", year=1998, genre="Crime")
        after = movie_rows(engine)
        engine.dispose()

    assert {answer.status_code for answer in answers} == {503}
    assert same_title.status_code == 409
    assert after == before

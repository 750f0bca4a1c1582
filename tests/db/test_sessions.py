"""Every request ends its transaction, although nothing closes its session."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.dependencies import SessionDep, get_session
from app.models import Movie
from tests.operations import SHARING_A_DATABASE, Operation, store_what_examples_name


@pytest.fixture
def sessions(app: FastAPI) -> list[Session]:
    """Return the sessions of all requests, which are therefore not garbage-collected."""
    sessions: list[Session] = []

    async def keep_session(request: Request) -> Session:
        sessions.append(await get_session(request))
        return sessions[-1]

    app.dependency_overrides[get_session] = keep_session
    return sessions


def holds_a_transaction(app: FastAPI) -> bool:
    """Return whether a connection of the application's pool is still in a transaction."""
    engine = app.state.service.database.engine
    if engine.dialect.name == "postgresql":
        return bool(engine.pool.checkedout())
    with engine.connect() as connection:
        # A checkpoint cannot empty the WAL while another connection reads or writes.
        return bool(connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0])


@pytest.mark.parametrize("operations", SHARING_A_DATABASE.values(), ids=SHARING_A_DATABASE)
def test_successful_request_leaves_no_transaction_open(
    app: FastAPI, sessions: list[Session], client: TestClient, operations: list[Operation]
) -> None:
    store_what_examples_name(app.state.service.database.engine)

    for operation in operations:
        sessions.clear()
        response = client.request(operation.method, operation.complete_url, json=operation.body)

        assert response.is_success
        has_session = operation.path not in {"/health", "/ready"}
        assert (operation, len(sessions)) == (operation, int(has_session))
        assert not holds_a_transaction(app), operation


def test_failed_request_leaves_no_transaction_open(
    app: FastAPI, sessions: list[Session], client: TestClient
) -> None:
    store_what_examples_name(app.state.service.database.engine)
    requests: list[tuple[str, object, int]] = [
        ("GET /movies/99", None, 404),
        ("GET /movies?limit=0", None, 422),
        ("POST /movies", {"title": "Inception", "year": 2010}, 409),
        ("PATCH /movies/99", {"year": 2010}, 404),
        ("PATCH /movies/2", {"title": "Inception"}, 409),
        ("PATCH /movies/99", {}, 404),
        ("DELETE /movies/99", None, 404),
        ("POST /ratings", {"movie_id": 99, "user_id": 1, "score": 5}, 404),
        ("DELETE /movies/1/ratings/99", None, 404),
    ]

    for line, body, status in requests:
        sessions.clear()
        response = client.request(*line.split(), json=body)

        assert (line, response.status_code, len(sessions)) == (line, status, 1)
        assert not holds_a_transaction(app), line


def test_request_to_a_broken_database_leaves_no_transaction_open(
    app: FastAPI, sessions: list[Session], client: TestClient
) -> None:
    with app.state.service.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE rating RENAME TO hidden")
        connection.exec_driver_sql("ALTER TABLE movie RENAME TO hidden_too")
    reads = ("/movies", "/movies/1", "/movies/top", "/ratings")
    try:
        statuses = [client.get(path).status_code for path in reads]
        statuses.append(client.post("/movies", json={"title": "Heat", "year": 1995}).status_code)
    finally:
        with app.state.service.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden_too RENAME TO movie")
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO rating")

    assert min(statuses) >= 500
    assert len(sessions) == 5
    assert not holds_a_transaction(app)


@pytest.mark.parametrize("fails", [False, True])
def test_route_that_leaves_a_transaction_open_keeps_no_connection(
    app: FastAPI, *, fails: bool
) -> None:
    kept = []

    def titles(session: SessionDep) -> int:
        kept.append(session)  # so that garbage collection does not close it
        session.add(Movie(title="Unfinished", year=2000))
        session.flush()
        return 1 // (not fails)

    app.add_api_route("/titles", titles)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/titles").status_code == (500 if fails else 200)
        assert not kept[0].in_transaction()
        assert not holds_a_transaction(app)
        assert client.get("/movies").json() == []
        assert client.post("/movies", json={"title": "Heat", "year": 1995}).status_code == 201

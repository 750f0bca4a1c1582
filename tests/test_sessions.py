"""Every request ends its transaction, although nothing closes its session."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.dependencies import get_session
from app.repository import MovieReader, MovieRepository
from app.transactions import ReadSession, reading, writing
from tests.operations import SHARING_A_DATABASE, Operation, store_what_examples_name


@pytest.fixture
def sessions(app: FastAPI) -> list[Session]:
    """The sessions of requests, kept from the garbage collector."""
    sessions: list[Session] = []

    async def keep_session(request: Request) -> Session:
        sessions.append(await get_session(request))
        return sessions[-1]

    app.dependency_overrides[get_session] = keep_session
    return sessions


def holds_a_transaction(app: FastAPI) -> bool:
    """Tell whether a connection of the application's pool is still in a transaction."""
    engine = app.state.engine
    if engine.dialect.name == "postgresql":
        return bool(engine.pool.checkedout())
    with engine.connect() as connection:
        # A checkpoint cannot empty the WAL during another transaction.
        return bool(connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0])


@pytest.mark.parametrize("operations", SHARING_A_DATABASE.values(), ids=SHARING_A_DATABASE)
def test_request_that_succeeds_leaves_no_transaction_open(
    app: FastAPI, sessions: list[Session], client: TestClient, operations: list[Operation]
) -> None:
    store_what_examples_name(app.state.engine)

    for operation in operations:
        sessions.clear()
        response = client.request(operation.method, operation.url, json=operation.body)

        assert response.is_success
        assert (operation, len(sessions)) == (operation, int(operation.path != "/health"))
        assert not holds_a_transaction(app), operation


def test_request_that_fails_leaves_no_transaction_open(
    app: FastAPI, sessions: list[Session], client: TestClient
) -> None:
    store_what_examples_name(app.state.engine)
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


def test_a_request_to_a_database_that_breaks_leaves_no_transaction_open(
    app: FastAPI, sessions: list[Session], client: TestClient
) -> None:
    with app.state.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE rating RENAME TO hidden")
        connection.exec_driver_sql("ALTER TABLE movie RENAME TO hidden_too")
    reads = ("/movies", "/movies/1", "/movies/top", "/ratings")
    try:
        statuses = [client.get(path).status_code for path in reads]
        statuses.append(client.post("/movies", json={"title": "Heat", "year": 1995}).status_code)
    finally:
        with app.state.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden_too RENAME TO movie")
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO rating")

    assert min(statuses) >= 500
    assert len(sessions) == 5
    assert not holds_a_transaction(app)


def test_type_checker_rejects_a_write_through_a_read_session(session: Session) -> None:
    """Fail mypy if an ignore becomes unnecessary."""
    read_session = ReadSession(session)

    MovieRepository(read_session)  # type: ignore[arg-type]
    with reading(read_session), pytest.raises(RuntimeError), writing(read_session):  # type: ignore[arg-type]
        pass
    assert not hasattr(MovieReader(read_session), "create")

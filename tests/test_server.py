"""The service as its users run it: a process of its own, killed and started again."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from alembic import command
from alembic.config import Config

from app.config import PROJECT_ROOT
from tests.conftest import ENGINES
from tests.logs import events, parse_json
from tests.server import Commands, Finished, Server, new_database, running_server

UVICORN = ["-m", "uvicorn", "app.main:app", "--port", "0"]
CLIENTS = 8
RATINGS_EACH = 10


@pytest.fixture(params=ENGINES)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database of each engine."""
    with new_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder to run from, which is not the project's."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def send_raw(server: Server, request: bytes) -> bytes:
    """Send bytes as they are, which no HTTP client would, and return the answer."""
    address = urlsplit(server.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def rate(client: httpx.Client, movie_id: int, user_id: int, score: int) -> None:
    """Post a rating with a trace id that tells it from all others."""
    response = client.post(
        "/ratings",
        json={"movie_id": movie_id, "user_id": user_id, "score": score},
        headers={"X-Trace-Id": f"rating-{movie_id}-{user_id}"},
    )
    assert response.status_code == 204, response.text


def test_what_was_rated_is_there_after_a_restart_and_after_a_kill(
    new_url: str, elsewhere: Path
) -> None:
    with running_server(elsewhere, database_url=new_url) as server, server.client() as client:
        top = client.get("/movies/top?limit=3").json()
        assert [movie["title"] for movie in top] == ["Black Panther", "Inception", "Spirited Away"]
        assert len(client.get("/movies").json()) == 5
        rate(client, 2, user_id=1, score=5)
        server.stop()

    with running_server(elsewhere, database_url=new_url) as server, server.client() as client:
        after_restart = client.get("/movies/2").json()
        rate(client, 2, user_id=2, score=4)
        server.kill()

    with running_server(elsewhere, database_url=new_url) as server, server.client() as client:
        after_kill = client.get("/movies/2").json()
        first = client.get("/movies/top?limit=1").json()
        total = client.get("/movies").headers["X-Total-Count"]

    assert (after_restart["rating_count"], after_restart["average_rating"]) == (1, 5.0)
    assert (after_kill["rating_count"], after_kill["average_rating"]) == (2, 4.5)
    assert first == [after_kill]
    assert total == "5"


def test_four_workers_start_on_no_database_and_lose_no_rating(
    new_url: str, elsewhere: Path
) -> None:
    def rate_movies(user: int) -> None:
        with server.client() as client:
            for number in range(RATINGS_EACH):
                rate(client, movie_id=number % 2 + 1, user_id=user, score=number % 5 + 1)
                rate(client, movie_id=3, user_id=1000 * user + number + 1, score=user % 5 + 1)

    with (
        running_server(elsewhere, workers=4, database_url=new_url, log_format="json") as server,
        ThreadPoolExecutor(CLIENTS) as executor,
    ):
        list(executor.map(rate_movies, range(1, CLIENTS + 1)))
        with server.client() as client:
            movies = {movie["id"]: movie for movie in client.get("/movies").json()}

    counts = {movie_id: movie["rating_count"] for movie_id, movie in movies.items()}
    assert counts == {1: CLIENTS, 2: CLIENTS, 3: CLIENTS * RATINGS_EACH, 4: 0, 5: 0}
    finished = Commands(elsewhere, database_url=new_url).database("check")
    assert finished == Finished(0, "Database sound\n", "")

    # The starting process knows nothing of the service's log format.
    workers_lines = [line for line in server.lines() if not line.startswith("INFO:  ")]
    logged = [parse_json(line) for line in workers_lines]
    assert sum(entry["event"] == "Application startup complete." for entry in logged) == 4
    seeded = [entry["count"] for entry in logged if entry["event"] == "movies.created"]
    assert sum(seeded) == 5
    added = [entry for entry in logged if entry["event"] == "rating.added"]
    assert len(added) == 2 * CLIENTS * RATINGS_EACH
    # No request has got the trace id of another one.
    assert all(
        entry["trace_id"] == f"rating-{entry['movie_id']}-{entry['user_id']}" for entry in added
    )
    statuses = [entry["status"] for entry in logged if entry.get("path") == "/ratings"]
    assert statuses == [204] * len(added)


def test_a_raw_request_cannot_forge_a_line_and_each_is_logged_once(
    elsewhere: Path, sqlite_url: str
) -> None:
    requests = [
        b"GET /movies/%0A2026-01-01T00:00:00.000Z%20INFO%20forged.event HTTP/1.1\r\n",
        b"GET /movies/%22%20status=200%20trace_id=%22forged HTTP/1.1\r\n",
        b'GET /movies/"status=200 HTTP/1.1\r\n',
        b'GET /movies?q="&status=200&trace_id="forged HTTP/1.1\r\n',
        b"GET /movies/\xe2\x80\xa8forged.event HTTP/1.1\r\n",
        b"GET /movies/%FF%FE HTTP/1.1\r\n",
        b"GET /movies HTTP/1.1\r\nX-Trace-Id: demo trace_id=forged\r\n",
        b"GET /movies HTTP/1.1\r\nX-Trace-Id: demo-1\r\nX-Trace-Id: demo-2\r\n",
        b"GET /movies HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4 status=200\r\n",
        b"GET /health HTTP/1.1\r\nUser-Agent: x\xff\r\n",
    ]
    with running_server(elsewhere, database_url=sqlite_url) as server:
        answers = [
            send_raw(server, request + b"Host: localhost\r\nConnection: close\r\n\r\n")
            for request in requests
        ]
        server.stop()

    lines = server.lines()
    accesses = [
        event for event in events("\n".join(lines), "text") if event["event"] == "http.request"
    ][1:]  # the first one is how running_server() knows that it answers
    assert all(answer.startswith(b"HTTP/1.1 ") for answer in answers)
    served = [answer for answer in answers if b"x-trace-id" in answer.lower()]
    assert len(accesses) == len(served)
    for answer, access in zip(served, accesses, strict=True):
        assert answer.startswith(f"HTTP/1.1 {access['status']} ".encode())
        assert f"x-trace-id: {access['trace_id']}\r\n".encode() in answer.lower()
    assert not any("HTTP/1.1" in line for line in lines)


def test_without_auto_setup_a_schema_that_is_behind_stops_the_start(
    sqlite_url: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", sqlite_url)
    command.downgrade(Config(PROJECT_ROOT / "alembic.ini"), "-1")

    finished = Commands(elsewhere, database_url=sqlite_url, auto_setup="false").python(*UVICORN)

    assert finished.exit_code == 3
    assert "Traceback" not in finished.errors
    assert "Run: uv run alembic upgrade head" in finished.errors.splitlines()


def test_a_start_that_fails_says_why_without_a_traceback(elsewhere: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("These are notes, and no database.\n" * 50)

    no_database = Commands(elsewhere, database_url=f"sqlite:///{path}").python(*UVICORN)
    no_setting = Commands(elsewhere, database_url="mysql://root:secret@127.0.0.1/movies").python(
        *UVICORN
    )

    assert no_database.exit_code == 3
    assert f"{path} is not a SQLite database. Nothing was changed." in no_database.errors
    assert path.read_text() == "These are notes, and no database.\n" * 50
    assert no_setting == Finished(
        3,
        "",
        "Settings are not valid.\n"
        "MOVIE_DATABASE_URL: Value error, must be sqlite or postgresql, not mysql\n",
    )
    for finished in (no_database, no_setting):
        assert "Traceback" not in finished.errors

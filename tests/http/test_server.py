"""The service as a process: stopped, killed, started again, and with several workers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.db import create_db_engine
from app.main import create_app
from tests.helpers import problems_of
from tests.logs import events, parse_json
from tests.server import Commands, Finished, Server, running_server, serving

CLIENTS = 8
RATINGS_EACH = 10


def send_raw(server: Server, request: bytes) -> bytes:
    """Send raw bytes and return the response."""
    with server.connect() as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def rate(client: httpx.Client, movie_id: int, user_id: int, score: int) -> None:
    """Post a rating with a unique trace id."""
    response = client.post(
        "/ratings",
        json={"movie_id": movie_id, "user_id": user_id, "score": score},
        headers={"X-Trace-Id": f"rating-{movie_id}-{user_id}"},
    )
    assert response.status_code == 204, response.text


@pytest.mark.slow
@pytest.mark.ci
def test_ratings_survive_a_restart_and_a_kill(new_url: str, elsewhere: Path) -> None:
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

    with TestClient(create_app(Settings(database_url=new_url))) as client:
        after_kill = client.get("/movies/2").json()
        first = client.get("/movies/top?limit=1").json()
        total = client.get("/movies").headers["X-Total-Count"]

    assert (after_restart["rating_count"], after_restart["average_rating"]) == (1, 5.0)
    assert (after_kill["rating_count"], after_kill["average_rating"]) == (2, 4.5)
    assert first == [after_kill]
    assert total == "5"


@pytest.mark.slow
@pytest.mark.ci
def test_four_workers_start_on_no_database_and_lose_no_rating(
    new_url: str, elsewhere: Path
) -> None:
    def rate_movies(user: int) -> None:
        with server.client() as client:
            for number in range(RATINGS_EACH):
                rate(client, ids[number % 2], user_id=user, score=number % 5 + 1)
                rate(client, ids[2], user_id=1000 * user + number + 1, score=user % 5 + 1)

    with (
        running_server(
            elsewhere, workers=4, database_url=new_url, busy_timeout="60", log_format="json"
        ) as server,
        server.client() as client,
        ThreadPoolExecutor(CLIENTS) as executor,
    ):
        # PostgreSQL skips the ids of movies that two workers tried to store.
        ids = [movie["id"] for movie in client.get("/movies").json()]
        list(executor.map(rate_movies, range(1, CLIENTS + 1)))
        counts = [movie["rating_count"] for movie in client.get("/movies").json()]

    assert counts == [CLIENTS, CLIENTS, CLIENTS * RATINGS_EACH, 0, 0]
    engine = create_db_engine(new_url)
    assert problems_of(engine) == []
    engine.dispose()

    # The parent process does not use the log format of the service.
    workers_lines = [line for line in server.lines() if not line.startswith("INFO:  ")]
    logged = [parse_json(line) for line in workers_lines]
    assert sum(entry["event"] == "Application startup complete." for entry in logged) == 4
    seeded = [entry["count"] for entry in logged if entry["event"] == "movies.created"]
    assert sum(seeded) == 5
    started = [entry["movies"] for entry in logged if entry["event"] == "service.started"]
    assert started == [5] * 4
    added = [entry for entry in logged if entry["event"] == "rating.added"]
    assert len(added) == 2 * CLIENTS * RATINGS_EACH
    # No request has the trace id of another.
    assert all(
        entry["trace_id"] == f"rating-{entry['movie_id']}-{entry['user_id']}" for entry in added
    )
    statuses = [entry["status"] for entry in logged if entry.get("path") == "/ratings"]
    assert statuses == [204] * len(added)


def test_raw_request_cannot_forge_a_line_and_is_logged_once(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
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
    with serving(create_app(Settings(database_url=sqlite_url))) as server:
        answers = [
            send_raw(server, request + b"Host: localhost\r\nConnection: close\r\n\r\n")
            for request in requests
        ]

    log = capsys.readouterr().err
    accesses = [event for event in events(log, "text") if event["event"] == "http.request"]
    assert all(answer.startswith(b"HTTP/1.1 ") for answer in answers)
    served = [answer for answer in answers if b"x-trace-id" in answer.lower()]
    assert len(accesses) == len(served)
    for answer, access in zip(served, accesses, strict=True):
        assert answer.startswith(f"HTTP/1.1 {access['status']} ".encode())
        assert f"x-trace-id: {access['trace_id']}\r\n".encode() in answer.lower()
    assert "HTTP/1.1" not in log


@pytest.mark.slow
@pytest.mark.ci
def test_invalid_setting_is_named_without_a_traceback(elsewhere: Path) -> None:
    commands = Commands(elsewhere, database_url="mysql://root:secret@127.0.0.1/movies")

    finished = commands.python("-m", "uvicorn", "app.main:app", "--port", "0")

    assert finished == Finished(
        3,
        "",
        "MOVIE_DATABASE_URL must be sqlite or postgresql, not mysql.\n",
    )

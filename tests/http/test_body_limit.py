"""A body over MOVIE_MAX_BODY_BYTES is 413, and one that stalls is 408."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.config import Settings
from app.limits import Limits
from app.main import create_app
from tests.helpers import everything
from tests.operations import WRITING, Operation, store_what_examples_name
from tests.server import Server, running_server, serving

LIMIT = 2048
JSON_BODY = "Content-Type: application/json"
LARGE_CHUNK = b"400\r\n" + b" " * 0x400 + b"\r\n"
WITH_BODY = [operation for operation in WRITING if operation.body is not None]


def refusal(limit: int = LIMIT) -> dict[str, str]:
    """Return the body of a 413."""
    return {"detail": f"The body is over {limit} bytes"}


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings with a small limit."""
    return Settings(database_url=database_url, auto_setup=False, max_body_bytes=LIMIT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Server]:
    """Yield a real server with a small limit, shared by tests that leave no data in it."""
    path = shutil.copy(sqlite_template, tmp_path_factory.mktemp("server"))
    settings = Settings(database_url=f"sqlite:///{path}", auto_setup=False, max_body_bytes=LIMIT)
    with serving(create_app(settings)) as server:
        yield server


def padded(body: object, size: int) -> bytes:
    """Return a body as JSON, padded with spaces to a size in bytes."""
    return json.dumps(body).encode().ljust(size)


def in_chunks(body: bytes) -> Iterator[bytes]:
    """Yield a body in parts, which httpx sends in chunks without a Content-Length."""
    for start in range(0, len(body), 500):
        yield body[start : start + 500]


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_body_at_the_limit_passes_and_one_byte_more_is_413(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    assert "413" in operation.description["responses"]
    store_what_examples_name(engine)
    before = everything(engine)
    headers = {"Content-Type": "application/json", "X-Trace-Id": "mine"}
    # A batch of ratings may be four times as long.
    limit = 4 * LIMIT if operation.path == "/ratings/batch" else LIMIT
    bodies = [padded(operation.body, limit + 1), b"not JSON " * limit]

    for body in bodies:
        refused = client.request(operation.method, operation.url, content=body, headers=headers)

        assert (refused.status_code, refused.json()) == (413, refusal(limit))
        assert refused.headers["Content-Type"] == "application/json"
        assert refused.headers["X-Trace-Id"] == "mine"
        assert refused.headers["X-Content-Type-Options"] == "nosniff"
    assert everything(engine) == before
    body = padded(operation.body, limit)
    accepted = client.request(operation.method, operation.url, content=body, headers=headers)
    assert accepted.is_success
    assert everything(engine) != before


def test_every_operation_with_a_body_has_an_example() -> None:
    assert [each for each in WRITING if "requestBody" in each.description] == WITH_BODY


def test_default_limit_is_64_kib(sqlite_url: str) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False))
    movie = {"title": "Arrival", "year": 2016}
    headers = {"Content-Type": "application/json"}
    with TestClient(app) as client:
        refused = client.post("/movies", content=padded(movie, 65_537), headers=headers)
        accepted = client.post("/movies", content=padded(movie, 65_536), headers=headers)

    assert (refused.status_code, accepted.status_code) == (413, 201)
    assert refused.json() == refusal(65_536)


@pytest.mark.parametrize("size", [LIMIT + 1, 50 * LIMIT])
def test_chunks_over_the_limit_are_413_on_a_real_server(server: Server, size: int) -> None:
    movie = {"title": "Arrival", "year": 2016}
    headers = {"Content-Type": "application/json", "X-Trace-Id": "mine"}

    def post(client: httpx.Client, size: int) -> httpx.Response:
        return client.post("/movies", content=in_chunks(padded(movie, size)), headers=headers)

    with server.client() as client:
        refused = post(client, size)
        titles = [movie["title"] for movie in client.get("/movies").json()]
        accepted = post(client, LIMIT)
        deleted = client.delete(accepted.headers["Location"])

    assert refused.request.headers["Transfer-Encoding"] == "chunked"
    assert (refused.status_code, refused.json()) == (413, refusal())
    assert refused.headers["X-Trace-Id"] == "mine"
    assert titles == []
    assert (accepted.status_code, deleted.status_code) == (201, 204)


def exchange(server: Server, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes and return the status, headers and body of the response.

    The connection stays open for writing, so the server has to respond before the request ends;
    otherwise the socket times out.
    """
    with server.connect() as connection:
        for part in parts:
            connection.sendall(part)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers: dict[str, str] = {}
            while line := stream.readline().strip():
                name, _, value = line.decode("latin-1").partition(": ")
                headers[name.lower()] = value
            return status, headers, stream.read(int(headers["content-length"]))


def request_head(method: str, path: str, *headers: str) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", "X-Trace-Id: raw-1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def test_413_does_not_wait_for_the_rest_of_the_body(server: Server) -> None:
    too_long = f"Content-Length: {LIMIT + 1}"
    requests = {
        "announced": [request_head("POST", "/movies", JSON_BODY, too_long)],
        "announced, huge": [
            request_head("PUT", "/movies/1", JSON_BODY, f"Content-Length: {2**63 - 1}")
        ],
        "asks first": [
            request_head("POST", "/movies", JSON_BODY, too_long, "Expect: 100-continue")
        ],
        "endless chunks": [
            request_head("POST", "/ratings", JSON_BODY, "Transfer-Encoding: chunked"),
            *[LARGE_CHUNK] * 3,
        ],
    }

    for name, parts in requests.items():
        status, headers, body = exchange(server, *parts)

        assert (name, status, json.loads(body)) == (name, 413, refusal())
        assert headers["content-type"] == "application/json"
        assert headers["x-trace-id"] == "raw-1"
        assert headers["x-content-type-options"] == "nosniff"


def test_read_ignores_a_body_and_does_not_wait_for_it(server: Server) -> None:
    length, chunked = "Content-Length: {}".format, "Transfer-Encoding: chunked"
    requests = {
        "small": [request_head("GET", "/movies", length(4)), b"null"],
        "empty": [request_head("GET", "/movies", length(0))],
        "chunked": [request_head("GET", "/movies", chunked), b"4\r\nnull\r\n0\r\n\r\n"],
        "large": [request_head("GET", "/movies", length(9999999))],
        "endless chunks": [request_head("GET", "/movies", chunked), *[LARGE_CHUNK] * 3],
    }

    for name, parts in requests.items():
        for _ in range(2):  # from the database, then from the cache
            status, headers, body = exchange(server, *parts)

            assert (name, status, body) == (name, 200, b"[]")
            assert headers["x-trace-id"] == "raw-1"


def test_stalled_body_is_408_and_ends_the_connection(sqlite_url: str) -> None:
    settings = Settings(database_url=sqlite_url, auto_setup=False, max_body_bytes=LIMIT)
    length, chunked = "Content-Length: 100", "Transfer-Encoding: chunked"
    requests = {
        "half": [request_head("POST", "/movies", JSON_BODY, length), b'{"title": "Heat", '],
        "none": [request_head("PUT", "/movies/1", JSON_BODY, length)],
        "endless chunks": [request_head("POST", "/ratings", JSON_BODY, chunked), LARGE_CHUNK],
    }
    with ExitStack() as stack:
        server = stack.enter_context(serving(create_app(settings, Limits(body_timeout=0.2))))
        client = stack.enter_context(server.client())
        connections = {name: stack.enter_context(server.connect()) for name in requests}
        for name, parts in requests.items():
            for part in parts:
                connections[name].sendall(part)
        answers = {
            name: stack.enter_context(connection.makefile("rb")).read()
            for name, connection in connections.items()
        }
        movies = client.get("/movies").json()

    assert movies == []
    for name, answer in answers.items():
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), name
        assert {b"x-trace-id: raw-1", b"connection: close"} <= {*head.split(b"\r\n")}
        assert json.loads(body) == {"detail": "The rest of the body did not arrive in time"}


@pytest.mark.slow
@pytest.mark.ci
def test_unfinished_body_does_not_block_shutdown(sqlite_url: str, tmp_path: Path) -> None:
    head = request_head("POST", "/movies", JSON_BODY, "Content-Length: 100", "Expect: 100-continue")
    with (
        running_server(
            tmp_path, "--timeout-graceful-shutdown", "1", database_url=sqlite_url
        ) as server,
        server.connect() as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(head)
        # The route waits for the body, which never arrives.
        asked = answer.readline()
        exit_code = server.stop()

    assert asked == b"HTTP/1.1 100 Continue\r\n"
    assert exit_code == -signal.SIGTERM

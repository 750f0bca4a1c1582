"""White space around a header's value is not part of it (RFC 9110, section 5.5)."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.server import Server, serving

KEY = "right"
# White space before and after the value.
SPACES = [(b"", b" "), (b"", b"\t"), (b" ", b""), (b"\t \t", b" \t ")]
GET = b"GET /movies/1 HTTP/1.1"
PATCH = b"PATCH /movies/1 HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2"
ACCEPTED = f"X-API-Key: {KEY}".encode()
ETAG = b'"?"'
# A request, the header with the white space, its value, and the answer's start and a part of it.
HEADERS = {
    "Host": (GET, b"127.0.0.1:8000", b"200", b'"title"'),
    "X-Trace-Id": (GET, b"mine", b"200", b"x-trace-id: mine\r\n"),
    "Origin": (GET, b"http://localhost:3000", b"200", b"allow-origin: http://localhost:3000\r\n"),
    "Accept-Encoding": (b"GET /openapi.json HTTP/1.1", b"gzip", b"200", b"content-encoding: gzip"),
    "Accept": (b"GET /nowhere HTTP/1.1", b"text/html", b"404", b"content-type: text/html"),
    "If-None-Match": (GET, ETAG, b"304", b"etag: "),
    "X-API-Key": (PATCH, KEY.encode(), b"200", b'"title"'),
    "If-Match": (PATCH + b"\r\n" + ACCEPTED, ETAG, b"200", b'"title"'),
    "Content-Encoding": (PATCH + b"\r\n" + ACCEPTED, b"identity", b"200", b'"title"'),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with an API key. Its requests change nothing."""
    path = tmp_path_factory.mktemp("server") / "movies.db"
    settings = Settings(database_url=f"sqlite:///{path}", api_key=KEY)  # type: ignore[arg-type] # the environment's form
    with serving(create_app(settings)) as server:
        yield server


def answer_to(server: Server, request: bytes) -> bytes:
    """Return everything that the server sends before it closes the connection."""
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(request)
        return answer.read()


@pytest.mark.parametrize("name", HEADERS)
def test_space_around_a_value_makes_no_difference(server: Server, name: str) -> None:
    request, value, status, part = HEADERS[name]
    with server.client() as client:
        value = value.replace(ETAG, client.get("/movies/1").headers["ETag"].encode())
    others = b"Connection: close\r\n" + (b"" if name == "Host" else b"Host: localhost\r\n")

    for before, after in [(b"", b""), *SPACES]:
        header = name.encode() + b":" + before + value + after + b"\r\n"
        answer = answer_to(server, request + b"\r\n" + header + others + b"\r\n{}")

        assert answer.startswith(b"HTTP/1.1 " + status), (header, answer)
        assert part in answer, header


def test_space_within_a_value_is_part_of_it(server: Server) -> None:
    key = b"X-API-Key: ri ght\r\n"

    answer = answer_to(server, PATCH + b"\r\n" + key + b"Host: x\r\nConnection: close\r\n\r\n{}")

    assert answer.startswith(b"HTTP/1.1 401 ")


def test_space_is_removed_on_any_server(sqlite_url: str) -> None:
    with TestClient(create_app(Settings(database_url=sqlite_url))) as client:
        headers = {"Host": "localhost ", "X-Trace-Id": "\tmine "}

        response = client.get("/health", headers=headers)

    assert (response.status_code, response.headers["X-Trace-Id"]) == (200, "mine")

"""Limits of a single connection, which keep the service available to others."""

import socket
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest

from app import http_limits
from app.config import Settings
from app.main import create_app
from tests.server import Server, ServerProcess, running_server, serving

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
MEGABYTE = 2**20

POST = b"POST /ratings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Requests whose end two programs may see in different places; the body hides a second request.
AMBIGUOUS = {
    "a length and chunks": POST
    + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, shared by tests that store nothing."""
    path = tmp_path_factory.mktemp("server") / "movies.db"
    with serving(create_app(Settings(database_url=f"sqlite:///{path}"))) as server:
        yield server


def answer_to(server: Server, request: bytes) -> bytes:
    """Return all bytes that the server sends before it closes the connection."""
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(request)
        return answer.read()


def send_until_refused(connection: socket.socket, part: bytes, limit: int) -> int:
    """Send a part again and again, and return how many bytes were sent before that failed."""
    sent = 0
    try:
        while sent < limit:
            connection.sendall(part)
            sent += len(part)
    except (ConnectionError, TimeoutError):
        pass
    return sent


def resident_bytes(server: ServerProcess) -> int:
    """Return how much memory a server takes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_each_pipelined_request_is_answered_in_its_turn(server: Server) -> None:
    # More requests than the server parses at once, and more bytes than it reads at once.
    padding = b"X-Padding: " + b"x" * 1000 + b"\r\n"
    requests = [
        b"GET /movies/%d HTTP/1.1\r\nHost: x\r\nX-Trace-Id: n-%d\r\n%s\r\n"
        % (n % 5 + 1, n, padding)
        for n in range(400)
    ]
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answers = answer_to(server, b"".join([*requests, last])).split(b"HTTP/1.1 200 OK\r\n")[1:]

    assert [f"x-trace-id: n-{n}\r\n".encode() in answer for n, answer in enumerate(answers)] == [
        True
    ] * len(requests) + [False]


def test_a_pipelined_body_of_several_reads_is_whole(server: Server) -> None:
    movie = b'{"title": "Arrival", "year": 2016}'.ljust(60_000)
    create = (
        b"POST /movies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(movie), movie)
    )
    delete = b"DELETE /movies/6 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = answer_to(server, SMUGGLED * 200 + create + SMUGGLED * 200 + delete)

    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200"] * 200 + [b"201"] + [b"200"] * 200 + [b"204"]


@LINUX
@pytest.mark.slow
@pytest.mark.ci
def test_requests_whose_responses_nobody_reads_take_no_memory(tmp_path: Path) -> None:
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    database = f"sqlite:///{tmp_path / 'movies.db'}"
    with running_server(tmp_path, database_url=database) as process, process.client() as client:
        client.get("/openapi.json")
        before = resident_bytes(process)
        with process.connect() as connection:
            connection.settimeout(0.5)
            send_until_refused(connection, requests, 20 * MEGABYTE)
            health = client.get("/health").status_code
            grown = resident_bytes(process) - before

    assert health == 200
    assert grown < 10 * MEGABYTE


@pytest.mark.parametrize(
    "start",
    [b"GET /", b"GET /health HTTP/1.1\r\nX-Long: ", CHUNKED + b"0\r\nX-Trailer: "],
    ids=["path", "header", "trailer"],
)
def test_a_head_without_end_is_400_while_others_are_served(server: Server, start: bytes) -> None:
    with server.connect() as connection, server.client() as client:
        connection.sendall(start)
        sent = send_until_refused(connection, b"x" * MEGABYTE, 48 * MEGABYTE)
        health = client.get("/health").status_code

    assert sent < 48 * MEGABYTE
    assert health == 200


def test_a_head_of_60_kb_is_served_and_one_of_80_kb_is_400(server: Server) -> None:
    start = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "

    served = answer_to(server, start + b"x" * 60_000 + b"\r\n\r\n")
    refused = answer_to(server, start + b"x" * 80_000)

    assert served.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert refused.endswith(b"\r\n\r\nThe head of the request is too long.")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: "],
        [SMUGGLED, b"GET /health HTTP/1.1\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", b"a part"],
    ],
    ids=["silent", "half a head", "half a second head", "a body that no route reads"],
)
def test_a_connection_that_sends_no_whole_request_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch, parts: list[bytes]
) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT", 0.2)
    with server.connect() as connection, connection.makefile("rb") as answers:
        for number, part in enumerate(parts):
            if number:  # the first is answered, after which uvicorn's own timeout runs
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            connection.sendall(part)

        answers.read()  # returns when the server closes the connection


def test_a_connection_whose_requests_come_whole_stays_open(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT", 0.05)
    longer = 0.2
    head = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as connection:
        answers = []
        # Idle after a request, and within a body.
        for part in (SMUGGLED, head):
            connection.sendall(part)
            answers.append(connection.recv(65536))
            quiet = select([connection], [], [], longer) == ([], [], [])
            assert quiet, "the server has closed the connection"
        connection.sendall(b"{}")
        answers.append(connection.recv(65536))

    assert [answer[9:12] for answer in answers] == [b"200", b"100", b"422"]


def test_body_in_tiny_chunks_does_not_count_as_a_head(server: Server) -> None:
    body = b'{"movie_id": 99, "score": 5}'.ljust(30_000)
    request = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)

    answer = answer_to(server, request + chunks + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 404 ")


def test_a_request_whose_end_is_ambiguous_is_400_and_hides_no_other(server: Server) -> None:
    answers = {name: answer_to(server, request + SMUGGLED) for name, request in AMBIGUOUS.items()}

    assert {
        name: (answer.count(b"HTTP/1.1"), answer[9:12]) for name, answer in answers.items()
    } == (dict.fromkeys(AMBIGUOUS, (1, b"400")))

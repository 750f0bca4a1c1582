"""Limits of a single connection, which keep the service available to others."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select

import pytest

from app.config import Settings
from app.http.connection_limits import limit_connections
from app.limits import Limits
from app.main import create_app
from tests.server import Server, ServerProcess, running_server, serving

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
MEGABYTE = 2**20
HEAD_TIMEOUT = 0.3

POST = b"POST /ratings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Requests whose end two programs may see in different places. HEALTH follows each.
AMBIGUOUS = {
    "a length and chunks": POST
    + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
}
ENDLESS_HEADS = {
    "path": b"GET /",
    "header": b"GET /health HTTP/1.1\r\nX-Long: ",
    "trailer": CHUNKED + b"0\r\nX-Trailer: ",
}
# Bytes that a client sends before it stalls, in parts; all but the last get a response.
UNFINISHED = {
    "nothing": [b""],
    "half a head": [b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: "],
    "half a second head": [HEALTH, b"GET /health HTTP/1.1\r\n"],
    "a body that no route reads": [
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
        b"a part",
    ],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server shared by the tests that leave no data in it."""
    path = tmp_path_factory.mktemp("server") / "movies.db"
    with serving(create_app(Settings(database_url=f"sqlite:///{path}"))) as server:
        yield server


@pytest.fixture
def impatient_server(sqlite_url: str) -> Iterator[Server]:
    """Yield a server that waits only HEAD_TIMEOUT for a head."""
    limits = Limits(head_timeout=HEAD_TIMEOUT)
    with serving(create_app(Settings(database_url=sqlite_url), limits)) as server:
        yield server
    # The limit belongs to uvicorn's class, which all servers of this process share.
    limit_connections(Limits())


def answer_to(server: Server, request: bytes) -> bytes:
    """Return everything that the server sends before it closes the connection."""
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(request)
        return answer.read()


def send_until_refused(connection: socket.socket, part: bytes, limit: int) -> int:
    """Send a part repeatedly, and return the number of bytes sent before sending failed."""
    sent = 0
    try:
        while sent < limit:
            connection.sendall(part)
            sent += len(part)
    except (ConnectionError, TimeoutError):
        pass
    return sent


def resident_bytes(server: ServerProcess) -> int:
    """Return the memory that a server occupies."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
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


def test_long_body_in_a_pipeline_arrives_complete(server: Server) -> None:
    movie = b'{"title": "Arrival", "year": 2016}'.ljust(60_000)
    create = (
        b"POST /movies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(movie), movie)
    )
    delete = b"DELETE /movies/6 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = answer_to(server, HEALTH * 200 + create + HEALTH * 200 + delete)

    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200"] * 200 + [b"201"] + [b"200"] * 200 + [b"204"]


@LINUX
@pytest.mark.slow
@pytest.mark.ci
def test_unread_responses_use_no_memory(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("start", ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
def test_endless_head_is_refused_while_others_are_served(server: Server, start: bytes) -> None:
    with server.connect() as connection, server.client() as client:
        connection.sendall(start)
        sent = send_until_refused(connection, b"x" * MEGABYTE, 48 * MEGABYTE)
        health = client.get("/health").status_code

    assert sent < 48 * MEGABYTE
    assert health == 200


def test_head_of_60_kb_is_served_and_one_of_80_kb_is_400(server: Server) -> None:
    start = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "

    served = answer_to(server, start + b"x" * 60_000 + b"\r\n\r\n")
    refused = answer_to(server, start + b"x" * 80_000)

    assert served.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert refused.endswith(b"\r\n\r\nThe head of the request is too long.")


def test_connection_without_a_complete_request_is_closed(impatient_server: Server) -> None:
    with ExitStack() as stack:
        answers = {}
        for name, parts in UNFINISHED.items():
            connection = stack.enter_context(impatient_server.connect())
            answers[name] = stack.enter_context(connection.makefile("rb"))
            for number, part in enumerate(parts):
                if number:  # the previous part is answered, so a second timeout begins
                    assert answers[name].readline() == b"HTTP/1.1 200 OK\r\n", name
                connection.sendall(part)

        for answer in answers.values():
            answer.read()  # returns when the server closes the connection


def test_connection_between_requests_or_within_a_body_stays_open(impatient_server: Server) -> None:
    head = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with impatient_server.connect() as connection:
        answers = []
        # Idle after a request, then in the middle of a body.
        for part in (HEALTH, head):
            connection.sendall(part)
            answers.append(connection.recv(65536))
            is_quiet = select([connection], [], [], 1.5 * HEAD_TIMEOUT) == ([], [], [])
            assert is_quiet, "the server has closed the connection"
        connection.sendall(b"{}")
        answers.append(connection.recv(65536))

    assert [answer[9:12] for answer in answers] == [b"200", b"100", b"422"]


def test_body_in_chunks_of_one_byte_does_not_count_as_a_head(server: Server) -> None:
    body = b'{"movie_id": 99, "score": 5}'.ljust(30_000)
    request = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)

    answer = answer_to(server, request + chunks + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 404 ")


def test_request_with_an_ambiguous_end_is_400_and_smuggles_no_other(server: Server) -> None:
    answers = {name: answer_to(server, request + HEALTH) for name, request in AMBIGUOUS.items()}

    assert {
        name: (answer.count(b"HTTP/1.1"), answer[9:12]) for name, answer in answers.items()
    } == (dict.fromkeys(AMBIGUOUS, (1, b"400")))

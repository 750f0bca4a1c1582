"""The memory that the heads of requests take, which is more than their bytes."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from app.config import Settings
from app.http.connection_limits import LONG_HEAD_BYTES, MAX_FIELDS, MAX_LONG_HEADS
from app.main import create_app
from tests.server import Server, ServerProcess, running_server, serving, wait_until

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
MEGABYTE = 2**20
CONNECTIONS = 300
START = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = (
    b"POST /ratings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n"
)
LAST = b"Connection: close\r\n\r\n"
FIELD = b"a:\r\n"
TOO_MANY = b"\r\n\r\nThe request has over 100 header fields."
# Unfinished heads of 60 kB.
UNFINISHED = {
    "many fields": START + FIELD * 14_000,
    "long field": START + b"X-Long: " + b"x" * 60_000,
    "long path": b"GET /" + b"x" * 60_000,
    "fields up to the limit": START + b"".join(b"X-%d: %0700d\r\n" % (n, n) for n in range(80)),
}


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    """Yield a server in this process."""
    with serving(create_app(Settings(database_url=sqlite_url))) as server:
        yield server


def answer_to(server: Server, request: bytes) -> bytes:
    """Return everything that the server sends before it closes the connection."""
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(request)
        return answer.read()


def is_refused(server: Server, request: bytes) -> bool:
    """Return whether a request is a 400."""
    return answer_to(server, request).startswith(b"HTTP/1.1 400 ")


def resident_bytes(server: ServerProcess) -> int:
    """Return the memory that a server occupies."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_request_with_100_fields_is_served_and_one_with_101_is_refused(server: Server) -> None:
    # Host and Connection are two of them.
    served = answer_to(server, START + FIELD * (MAX_FIELDS - 2) + LAST)
    refused = answer_to(server, START + FIELD * (MAX_FIELDS - 1) + LAST)

    assert served.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert refused.endswith(TOO_MANY)
    assert refused.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("start", [START, CHUNKED])
def test_unfinished_request_with_too_many_fields_is_refused(server: Server, start: bytes) -> None:
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(start + FIELD * 2000)
        refused = answer.read()

    assert refused.startswith(b"HTTP/1.1 400 ")
    assert refused.endswith(TOO_MANY)


def test_fields_are_counted_for_each_request(server: Server) -> None:
    request = START + FIELD * (MAX_FIELDS - 10) + b"\r\n"

    answer = answer_to(server, request * 5 + START + LAST)

    assert answer.count(b"HTTP/1.1 200 ") == 6


def test_long_unfinished_heads_are_limited_in_number_and_others_are_served(
    server: Server,
) -> None:
    long = START + b"X-Long: " + b"x" * LONG_HEAD_BYTES
    longer = long + b"x" * LONG_HEAD_BYTES + b"\r\n" + LAST
    with ExitStack() as stack, server.client() as client:
        held = [stack.enter_context(server.connect()) for _ in range(MAX_LONG_HEADS)]
        for connection in held:
            connection.sendall(long)
        # The server reads them in any order, and answers this request after those.
        wait_until(lambda: is_refused(server, longer), lambda: "a head over the limit is served")
        refused = answer_to(server, longer)
        short = client.get("/health").status_code
        held[0].sendall(b"\r\n\r\n")
        completed = held[0].recv(12)
        held[1].close()

    assert refused.startswith(b"HTTP/1.1 400 ")
    assert refused.endswith(b"Too many other requests have a long head: send a shorter one.")
    assert short == 200
    assert completed == b"HTTP/1.1 200"


@LINUX
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("head", UNFINISHED.values(), ids=UNFINISHED)
def test_unfinished_heads_take_little_memory(tmp_path: Path, sqlite_url: str, head: bytes) -> None:
    with running_server(tmp_path, database_url=sqlite_url) as server, ExitStack() as stack:
        before = resident_bytes(server)
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(server.connect())
            with suppress(ConnectionError):  # refused before everything was sent
                connection.sendall(head)
        with server.client() as client:
            health = client.get("/health").status_code
        grown = resident_bytes(server) - before

    assert health == 200
    # The heads' bytes alone are 18 MB.
    assert grown < 18 * MEGABYTE

"""A log whose reader stalls: requests go on, and the lines that nobody gets are counted."""

import fcntl
import logging
import os
import socket

import pytest

from app.config import Settings
from app.main import create_app
from tests.logs import events
from tests.server import serving

REQUESTS = 100
# Bytes: room for some thirty lines.
ROOM = 4096


def ends_of(kind: str) -> tuple[int, int]:
    """Return what a reader of the log reads from, and what the service writes to."""
    if kind == "pipe":
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, ROOM)
        return reader, writer
    # systemd hands a socket to the services that it starts.
    reading, writing = socket.socketpair()
    writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return reading.detach(), writing.detach()


def read_what_is_there(reader: int) -> str:
    """Read until there is nothing more for now."""
    os.set_blocking(reader, False)
    read = b""
    try:
        while part := os.read(reader, 65536):
            read += part
    except BlockingIOError:
        pass
    return read.decode()


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux writes without waiting")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_requests_go_on_while_nobody_reads_the_log_and_dropped_lines_are_counted(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("app", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])  # what is there comes back
    settings = Settings(database_url=sqlite_url)
    reader, writer = ends_of(kind)
    with os.fdopen(writer, "w") as stderr:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", stderr)
            app = create_app(settings)
        with serving(app) as server, server.client() as client:
            statuses = [client.get("/health").status_code for _ in range(REQUESTS)]
            text = read_what_is_there(reader)
            statuses.append(client.get("/health").status_code)
        text += read_what_is_there(reader)  # a response comes before its line
        monkeypatch.undo()
    os.close(reader)

    assert statuses == [200] * (REQUESTS + 1)
    written = events(text, "text")
    [dropped] = [event for event in written if event["event"] == "log.dropped"]
    lines = [event for event in written if event["event"] == "http.request"]
    assert len(lines) + int(dropped["count"]) == REQUESTS + 1
    assert int(dropped["count"]) > 0

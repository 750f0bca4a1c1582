"""The lines on standard error: their formats, their level, and a reader that stalls."""

import fcntl
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.logs import events, parse_json
from tests.server import serving

RATING = {"movie_id": 1, "user_id": 42, "score": 5}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
REQUESTS = 100
# Bytes, about thirty lines.
ROOM = 4096

Serve = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def serve(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> Serve:
    """Return a function that serves with other settings; the log starts empty.

    It is not called here, because pytest captures the output of fixtures separately.
    """

    @contextmanager
    def serve(**settings: str) -> Iterator[TestClient]:
        app = create_app(Settings.model_validate({"database_url": sqlite_url, **settings}))
        with TestClient(app) as client:
            capsys.readouterr()
            yield client

    return serve


def test_line_of_text_has_the_documented_form(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as client:
        client.post(
            "/movies", json={"title": "Ronin", "year": 1998}, headers={"X-Trace-Id": "demo-1234"}
        )
        created, access = capsys.readouterr().err.splitlines()

    assert re.fullmatch(f"{TIME} INFO movie.created movie_id=6 trace_id=demo-1234", created)
    assert re.fullmatch(
        f"{TIME} INFO http.request method=POST path=/movies status=201 duration_ms=[0-9.]+ "
        "client=testclient trace_id=demo-1234",
        access,
    )


def test_line_of_json_has_numbers(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(log_format="json") as client:
        client.post("/ratings", json=RATING)
        added, access = map(parse_json, capsys.readouterr().err.splitlines())

    expected = {"level": "INFO", "logger": "app", "event": "rating.added", **RATING}
    assert {name: added[name] for name in expected} == expected
    assert access["status"] == 204
    assert isinstance(access["duration_ms"], float)


def test_traceback_is_one_line_of_json(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(log_format="json"):
        error = RuntimeError("two\nlines")
        logging.getLogger("uvicorn.error").error("Exception in the application\n", exc_info=error)
        (line,) = capsys.readouterr().err.splitlines()

    entry = parse_json(line)
    assert (entry["level"], entry["exception"]) == ("ERROR", "RuntimeError: two\nlines")


def test_higher_log_level_drops_events_and_access_lines(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(log_level="WARNING") as client:
        client.post("/ratings", json=RATING)

    assert capsys.readouterr().err == ""


def test_access_lines_of_uvicorn_are_off(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve():
        logging.getLogger("uvicorn.access").info("%s - %s", "127.0.0.1", "GET /movies")
        logging.getLogger("uvicorn.error").info("Started")
        (line,) = capsys.readouterr().err.splitlines()

    assert re.fullmatch(f"{TIME} INFO Started", line)


def ends_of(kind: str) -> tuple[int, int]:
    """Return the file descriptors that the reader of the log and the service use."""
    if kind == "pipe":
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, ROOM)
        return reader, writer
    # systemd passes a socket to the services that it starts.
    reading, writing = socket.socketpair()
    writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return reading.detach(), writing.detach()


def read_available(reader: int) -> str:
    """Return everything that can be read without waiting."""
    os.set_blocking(reader, False)
    read = b""
    try:
        while part := os.read(reader, 65536):
            read += part
    except BlockingIOError:
        pass
    return read.decode()


@pytest.mark.skipif(
    not hasattr(os, "RWF_NOWAIT"), reason="needs Linux, which writes without waiting"
)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_stalled_reader_of_the_log_stops_no_request_and_dropped_lines_are_counted(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("app", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])  # restored at the end
    reader, writer = ends_of(kind)
    with os.fdopen(writer, "w") as stderr:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", stderr)
            app = create_app(Settings(database_url=sqlite_url))
        with serving(app) as server, server.client() as client:
            statuses = [client.get("/health").status_code for _ in range(REQUESTS)]
            text = read_available(reader)
            statuses.append(client.get("/health").status_code)
        text += read_available(reader)  # the server logs a line after its response
        monkeypatch.undo()
    os.close(reader)

    assert statuses == [200] * (REQUESTS + 1)
    written = events(text, "text")
    [dropped] = [event for event in written if event["event"] == "log.dropped"]
    lines = [event for event in written if event["event"] == "http.request"]
    assert len(lines) + int(dropped["count"]) == REQUESTS + 1
    assert int(dropped["count"]) > 0

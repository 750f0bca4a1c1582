"""A request whose client has disconnected by the time its turn comes is dropped."""

import asyncio
import socket
import threading
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.client import is_disconnected
from app.config import Settings
from app.dependencies import service_of
from app.limits import Limits
from app.main import create_app
from tests.server import DEADLINE_SECONDS, serving, wait_until

GET = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"


def application(sqlite_url: str, **limits: int) -> FastAPI:
    """Return an application whose reads always run in a worker thread."""
    settings = Settings(database_url=sqlite_url, auto_setup=False, read_cache=False)
    return create_app(settings, Limits(read_deadline=-1.0, read_steps=1, **limits))


def test_request_notices_that_its_client_has_disconnected(sqlite_url: str) -> None:
    app, started, noticed = application(sqlite_url), threading.Event(), threading.Event()

    async def wait(_request: Request) -> Response:
        assert not is_disconnected()
        started.set()
        while not is_disconnected():  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.001)
        noticed.set()
        return Response()

    app.add_route("/wait", wait)
    with serving(app) as server:
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as client:
            client.sendall(GET.format("/wait").encode())
            assert started.wait(DEADLINE_SECONDS)

        assert noticed.wait(DEADLINE_SECONDS)


def test_probes_answer_while_all_readers_are_busy_and_further_reads_are_503(
    sqlite_url: str,
) -> None:
    app, release = application(sqlite_url, waiting_reads=1), threading.Event()
    database = service_of(app).database
    busy: list[asyncio.Task[bool]] = []

    async def occupy(_request: Request) -> Response:
        # Four requests run, and one waits.
        busy.extend(asyncio.ensure_future(database.read_in_thread(release.wait)) for _ in range(5))
        await asyncio.sleep(0)
        return Response()

    app.add_route("/occupy", occupy)
    with serving(app) as server, httpx.Client(base_url=server.url, timeout=10) as client:
        client.get("/occupy")
        try:
            answers = [client.get(path) for path in ("/health", "/ready", "/movies", "/genres")]
        finally:
            release.set()
        wait_until(lambda: client.get("/movies").is_success, lambda: "The readers stay busy")

    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert answers[2].headers["Retry-After"] == "1"

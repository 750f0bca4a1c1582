"""Counts the hops of a request between the files of ``app/``, in any checkout of the service.

A hop is a Python call, in any thread, whose predecessor in the same thread lies in another file of
``app/``. Resuming a coroutine or a generator is a call, as it is for ``sys.setprofile``. Calls into
libraries are left out. The first call in a worker thread is a hop, because it continues the request
in another file. A second number counts returns and suspensions as well, within each thread.

The requests run in process on the starter movies in a scratch SQLite database, with the default
settings. They call the ASGI application directly: a test client would suspend it more often.
Each request is repeated first, so that everything is warm. A write precedes it, so that the read
cache is empty.

The only name of ``app/`` used here is ``app.main.app``. Run as a program, this module counts the
hops in one checkout and prints JSON: a process can import only one ``app``.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from scripts.bench.load import BenchError

REPETITIONS = 3
RATING = {"movie_id": 1, "user_id": 1, "score": 5}
CHANGE = {"year": 2011}
# Sent before each request that is counted: it empties the read cache.
WRITE = ("PATCH", "/movies/2", {"year": 1999})
REQUESTS = (
    ("GET", "/movies/top", None),
    ("POST", "/ratings", RATING),
    ("PATCH", "/movies/1", CHANGE),
)
HEADERS = {"host": "localhost", "accept": "*/*", "accept-encoding": "gzip, deflate"}
FIRST_ERROR_STATUS = 400


class Journey(NamedTuple):
    """A request's way through the files of ``app/``.

    Attributes:
        request: its method and path.
        hops: each call that is a hop, as file:function.
        with_returns: the number of hops if returns count too.
    """

    request: str
    hops: list[str]
    with_returns: int


def journeys_of(checkout: Path) -> list[Journey]:
    """Count the hops of each request in a checkout of the service.

    Raises:
        BenchError: there is no application, it does not start, or it refuses a request.
    """
    if not (checkout / "app" / "main.py").is_file():
        raise BenchError(f"{checkout} has no app/main.py. Name a checkout of the service.")
    environment = {name: it for name, it in os.environ.items() if not name.startswith("MOVIE_")}
    with tempfile.TemporaryDirectory(prefix="movie-journeys-") as folder:
        environment["MOVIE_DATABASE_URL"] = f"sqlite:///{Path(folder) / 'movies.db'}"
        finished = subprocess.run(  # noqa: S603 - this file
            [sys.executable, "-B", __file__, str(checkout.resolve())],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if finished.returncode:
        raise BenchError(f"Cannot count the hops in {checkout}:\n{finished.stderr[-2000:]}")
    return [Journey(*journey) for journey in json.loads(finished.stdout.splitlines()[-1])]


class Recorder:
    """Records the calls of, and returns from, functions in a folder."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"{folder}{os.sep}"
        self._events: list[tuple[int, str, str, str]] = []
        self._is_on = False

    def install(self) -> None:
        """Watch this thread, and threads that start from now on."""
        threading.setprofile(self._record)
        sys.setprofile(self._record)

    async def journey(self, name: str, request: Awaitable[None]) -> Journey:
        """Record one request."""
        self._events.clear()
        self._is_on = True
        await request
        self._is_on = False
        return Journey(name, self._hops(), self._hops_with_returns())

    def _record(self, frame: FrameType, event: str, _: object) -> None:
        if not self._is_on or event not in ("call", "return"):
            return
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if path.startswith(self._prefix):
            file = path.removeprefix(self._prefix)
            self._events.append((threading.get_ident(), event, file, name))

    def _hops(self) -> list[str]:
        last: dict[int, str] = {}
        hops = []
        for thread, event, file, name in self._events:
            if event != "call":
                continue
            # The request's very first call has no predecessor; that of a worker thread is a hop.
            if last and last.get(thread) != file:
                hops.append(f"{file}:{name}")
            last[thread] = file
        return hops

    def _hops_with_returns(self) -> int:
        last: dict[int, str] = {}
        hops = 0
        for thread, _, file, _ in self._events:
            hops += last.get(thread, file) != file
            last[thread] = file
        return hops


async def _count(app: Any, recorder: Recorder) -> list[Journey]:  # noqa: ANN401 - app.main is any checkout's
    journeys = []
    async with app.router.lifespan_context(app):
        for method, path, payload in REQUESTS:
            for _ in range(REPETITIONS):
                await _send(app, method, path, payload)
            await _send(app, *WRITE)
            request = _send(app, method, path, payload)
            journeys.append(await recorder.journey(f"{method} {path}", request))
    return journeys


async def _send(app: Any, method: str, path: str, payload: object) -> None:  # noqa: ANN401 - see above
    headers, body = dict(HEADERS), b""
    if payload is not None:
        body = json.dumps(payload).encode()
        headers |= {"content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }
    answered: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        answered.append(message)

    await app(scope, receive, send)
    if (status := answered[0]["status"]) >= FIRST_ERROR_STATUS:
        raise SystemExit(f"{method} {path} returned {status}: {answered[1]['body']!r}")


def main() -> None:
    """Count the checkout named on the command line, and print its journeys as JSON."""
    checkout = Path(sys.argv[1])
    sys.path.insert(0, str(checkout))
    recorder = Recorder(checkout / "app")
    # Before the application starts a thread.
    recorder.install()
    application = import_module("app.main").app
    journeys = asyncio.run(_count(application, recorder))
    print(json.dumps(journeys))  # noqa: T201 - the result


if __name__ == "__main__":
    main()

"""Servers for the bench, and clients that load them: wrk if it is installed, else Python."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

HOST = "127.0.0.1"
START_TIMEOUT = 30.0
# Seconds; longer than any of the servers waits for its database.
ANSWER_TIMEOUT = 30
FIRST_ERROR_STATUS = b"400"
WRK = shutil.which("wrk")
WRK_SCRIPT = """
local requests = %s
local last = 0
function request()
  last = last %% #requests + 1
  return requests[last]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%f, "median": %%f, "p99": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class BenchError(Exception):
    """The measurement cannot continue. The message says why."""


class Load(NamedTuple):
    """The result of loading a server. Latencies are in milliseconds."""

    requests: int
    seconds: float
    median: float
    p99: float
    errors: int

    @property
    def rate(self) -> float:
        """Return successful requests per second."""
        return (self.requests - self.errors) / self.seconds


class Target(NamedTuple):
    """A server, the requests to send, and the number of connections."""

    port: int
    requests: list[bytes]
    clients: int


def get(path: str) -> bytes:
    """Return the bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, payload: object) -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    body = json.dumps(payload)
    headers = f"Host: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{headers}\r\n\r\n{body}".encode()


@contextmanager
def serve(app: str, log: Path, environment: dict[str, str], *, workers: int = 1) -> Iterator[int]:
    """Run an application in a uvicorn process and yield its port.

    Args:
        app: module and attribute, in uvicorn's notation.
        log: the file for the server's output.
        environment: variables to add to those of this process, except its MOVIE_ settings.
        workers: the number of server processes.

    Raises:
        BenchError: the server does not start. The message ends with its output.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MOVIE_")}
    command = [sys.executable, "-m", "uvicorn", app, "--host", HOST, "--port", str(port)]
    command += ["--workers", str(workers)]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - this project's own applications
            command, env=inherited | environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _is_healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{app} does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_healthy(port: int) -> bool:
    try:
        with urlopen(f"http://{HOST}:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (URLError, OSError):
        return False


def load(target: Target, seconds: float, folder: Path) -> Load:
    """Send a target its requests in a loop on each connection.

    Raises:
        BenchError: the target does not respond.
    """
    if WRK:
        return _load_with_wrk(WRK, target, seconds, folder)
    return asyncio.run(_load_with_python(target, seconds))


def _load_with_wrk(wrk: str, target: Target, seconds: float, folder: Path) -> Load:
    script = folder / "requests.lua"
    # An ASCII string has the same literal in JSON and in Lua.
    texts = ",".join(json.dumps(request.decode()) for request in target.requests)
    script.write_text(WRK_SCRIPT % f"{{{texts}}}")
    options = {
        "--threads": 1,
        "--connections": target.clients,
        # wrk accepts whole seconds only.
        "--duration": f"{max(1, round(seconds))}s",
        "--timeout": f"{ANSWER_TIMEOUT}s",
        "--script": script,
    }
    arguments = [str(part) for option in options.items() for part in option]
    result = subprocess.run(  # noqa: S603 - wrk and a script made here
        [wrk, *arguments, f"http://{HOST}:{target.port}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise BenchError(f"wrk fails:\n{result.stdout}{result.stderr}")
    return Load(**json.loads(result.stdout.splitlines()[-1]))


async def _load_with_python(target: Target, seconds: float) -> Load:
    requests = cycle(target.requests)
    latencies: list[float] = []
    errors = 0
    started = time.perf_counter()

    async def ask_until_the_end() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(HOST, target.port)
        while (sent := time.perf_counter()) < started + seconds:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head):
                await reader.readexactly(int(length[1]))
            latencies.append((time.perf_counter() - sent) * 1000)
            errors += head.split(maxsplit=2)[1] >= FIRST_ERROR_STATUS
        writer.close()

    try:
        async with asyncio.timeout(seconds + ANSWER_TIMEOUT):
            await asyncio.gather(*(ask_until_the_end() for _ in range(target.clients)))
    except (OSError, EOFError, TimeoutError) as error:
        raise BenchError(f"The server does not respond: {error!r}") from error
    percentiles = quantiles([*latencies, *latencies], n=100)
    elapsed = time.perf_counter() - started
    return Load(len(latencies), elapsed, percentiles[49], percentiles[98], errors)

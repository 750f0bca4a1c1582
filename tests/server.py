"""The service on a real socket, in a thread or a process, and the project's commands."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import uvicorn
from alembic.config import Config
from fastapi import FastAPI
from uvicorn.config import HTTPProtocolType

from app.config import PROJECT_ROOT, Settings

# Enough for a slow machine: a test that waits this long has failed.
DEADLINE_SECONDS = 60.0
_ADDRESS = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
_ALEMBIC = [str(Path(sysconfig.get_path("scripts")) / "alembic"), "-c"]
# The folders and files of the project that its commands need.
PROJECT_PARTS = ("app", "migrations", "scripts", "alembic.ini", "pyproject.toml")


def environment(project: Path = PROJECT_ROOT, **settings: str) -> dict[str, str]:
    """Return the environment of a process of the project.

    Args:
        project: the project's folder, or the folder of a copy_of_project().
        settings: values of settings, such as ``database_url``. In the project's own folder all
            others get their defaults, so that a developer's .env has no say; without a database
            it is the tests' own.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MOVIE_")}
    if project == PROJECT_ROOT:
        for name, field in Settings.model_fields.items():
            default = field.default
            if default is not None:
                value = ",".join(default) if isinstance(default, list) else str(default)
                variables[f"MOVIE_{name.upper()}"] = value
        variables["MOVIE_DATABASE_URL"] = os.environ["MOVIE_DATABASE_URL"]
    else:
        variables["PYTHONPATH"] = str(project)
    for name, value in settings.items():
        variables[f"MOVIE_{name.upper()}"] = value
    return variables


def copy_of_project(folder: Path) -> Path:
    """Copy the project without tests and documentation into a new folder and return it."""
    for part in PROJECT_PARTS:
        source = PROJECT_ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


def copy_with_tests(folder: Path) -> Path:
    """Copy the project with the modules that tests import, but without tests.

    Its ``.env`` contains settings that would break tests.
    """
    project = copy_of_project(folder)
    no_tests = shutil.ignore_patterns("test_*.py", "__pycache__")
    shutil.copytree(PROJECT_ROOT / "tests", project / "tests", ignore=no_tests)
    (project / ".env").write_text(
        "MOVIE_API_KEY=secret\nMOVIE_DATABASE_URL=sqlite:///./movies.db\n"
    )
    return project


def alembic_config(project: Path) -> Config:
    """Return Alembic's configuration for a copy of the project."""
    config = Config(project / "alembic.ini", project / "pyproject.toml")
    config.set_main_option("script_location", str(project / "migrations"))
    return config


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    exit_code: int
    output: str
    errors: str


# Runs ``scripts/db.py`` on a database, given its URL and the arguments.
Command = Callable[..., Finished]


class Commands:
    """Runs the project's commands from another folder."""

    def __init__(self, folder: Path, project: Path = PROJECT_ROOT, **settings: str) -> None:
        self._folder = folder
        self._project = project
        self._environment = environment(project, **settings)

    def alembic(self, *arguments: str) -> Finished:
        """Run ``alembic`` with the project's configuration."""
        return self.run([*_ALEMBIC, str(self._project / "alembic.ini"), *arguments])

    def database(self, *arguments: str) -> Finished:
        """Run ``scripts/db.py``."""
        return self.run([sys.executable, str(self._project / "scripts" / "db.py"), *arguments])

    def python(self, *arguments: str) -> Finished:
        """Run Python with the project's packages."""
        return self.run([sys.executable, *arguments])

    def run(self, command: Sequence[str]) -> Finished:
        """Run a command and wait for its end."""
        finished = subprocess.run(  # noqa: S603 - the project's own commands
            command,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    def start(self, *arguments: str, log: Path | None = None) -> "subprocess.Popen[str]":
        """Start Python and return its process; it writes to a log, or else to pipes."""
        command = [sys.executable, *arguments]
        if log is None:
            return subprocess.Popen(  # noqa: S603 - the project's own commands
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        with log.open("a") as stream:
            return subprocess.Popen(  # noqa: S603 - the project's own commands
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Yield a client of this server, which ignores the proxies of the environment."""
        with httpx.Client(
            base_url=self.url,
            trust_env=False,
            verify=False,  # noqa: S501 - plain HTTP: no certificates to load, which takes a while
            timeout=DEADLINE_SECONDS,
        ) as client:
            yield client

    def connect(self) -> socket.socket:
        """Open a connection, to send bytes that no HTTP client would send."""
        address = httpx.URL(self.url)
        return socket.create_connection((address.host, address.port), timeout=DEADLINE_SECONDS)


@dataclass(frozen=True)
class ServerProcess(Server):
    """A server in a separate process."""

    process: "subprocess.Popen[str]"
    log: Path

    def lines(self) -> list[str]:
        """Return what the server has logged so far."""
        return self.log.read_text().splitlines()

    def kill(self) -> None:
        """Kill the server."""
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def stop(self) -> int:
        """Stop the server and return its exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE_SECONDS)


@contextmanager
def running_server(
    folder: Path,
    *options: str,
    workers: int = 1,
    project: Path = PROJECT_ROOT,
    **settings: str,
) -> Iterator[ServerProcess]:
    """Start ``uvicorn app.main:app`` on a free port and yield it when it answers.

    Only for tests of signals, workers and exit codes: starting takes a second.

    Args:
        folder: where it runs, and where its log is written.
        options: further options of uvicorn's.
        workers: how many processes answer.
        project: the project's folder, or a copy's.
        settings: values of settings. The log level has to be INFO or DEBUG, because the port is
            read from the log.

    Raises:
        AssertionError: the server ended or did not answer in time; the message is its log.
    """
    log = folder / f"server-{uuid4().hex}.log"
    arguments = ["-m", "uvicorn", "app.main:app", "--port", "0", "--workers", str(workers)]
    process = Commands(folder, project, **settings).start(*arguments, *options, log=log)
    try:

        def is_up() -> bool:
            text = log.read_text()
            complete = text.count("Application startup complete.") == workers
            return process.poll() is not None or (complete and _ADDRESS.search(text) is not None)

        wait_until(is_up, lambda: f"The server is not up:\n{log.read_text()}")
        found = _ADDRESS.search(log.read_text())
        assert process.poll() is None, f"The server has ended:\n{log.read_text()}"
        assert found is not None
        server = ServerProcess(found[1], process, log)
        with server.client() as client:
            assert client.get("/health").json() == {"status": "ok"}
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextmanager
def serving(app: FastAPI, root_path: str = "", http: HTTPProtocolType = "auto") -> Iterator[Server]:
    """Serve an application of this process on a free port, and yield it when it answers."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, root_path=root_path, http=http))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(
                lambda: server.started or not thread.is_alive(), lambda: "The server is not up"
            )
            assert server.started, "The server has ended"
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(DEADLINE_SECONDS)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    return port


def is_listening(port: int) -> bool:
    """Return whether a program listens on a port of this machine."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    """Return as soon as a condition is true.

    Raises:
        AssertionError: the condition is not true in time.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.01)

"""A primary and a standby of a test's own, made by PostgreSQL's own programs."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.databases import POSTGRES_URL, SET_POSTGRES_URL
from tests.server import DEADLINE_SECONDS, free_port, wait_until

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
needs_cluster = pytest.mark.skipif(
    POSTGRES_URL is None or PROGRAMS is None,
    reason=f"needs PostgreSQL and its programs: {SET_POSTGRES_URL}",
)
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
wal_receiver_status_interval = 1s
max_standby_streaming_delay = 0
max_connections = 60
"""


class Server:
    """A PostgreSQL server on 127.0.0.1 without passwords.

    Args:
        folder: of its data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    @property
    def address(self) -> str:
        """Return the server as a part of a URL's query."""
        return f"host=127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Return the URL of the only database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = str(self.folder.with_suffix(".log"))
        options = f"-c port={self.port}"
        self._pg_ctl("start", "--wait", "--log", log, "--options", options)

    def stop(self) -> None:
        """Stop it if it runs."""
        with suppress(subprocess.CalledProcessError):
            self._pg_ctl("stop", "--mode", "immediate")

    def kill(self) -> None:
        """End all of its processes at once, as a power cut does."""
        self.signal(signal.SIGKILL)
        with suppress(FileNotFoundError):
            (self.folder / "postmaster.pid").unlink()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        postmaster = int((self.folder / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        # Kill the postmaster first: it would report the end of a child as a crash.
        for process in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._pg_ctl("promote", "--wait")

    def run(self, statement: str) -> None:
        """Run a statement outside of a transaction."""
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(statement)

    def value(self, query: str) -> object:
        """Return the only value of a query."""
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]

    def _pg_ctl(self, action: str, *options: str) -> None:
        run("pg_ctl", action, "--silent", "--pgdata", str(self.folder), *options)


def run(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs to its end, as a user other than root."""
    assert PROGRAMS is not None
    command = [str(PROGRAMS / program), *arguments]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    subprocess.run(  # noqa: S603 - PostgreSQL's own programs
        command,
        cwd="/",
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_SECONDS,
    )


@contextmanager
def new_server() -> Iterator[Server]:
    """Yield a running server, gone at the end with its standbys."""
    folder = Path(tempfile.mkdtemp(prefix="movie-cluster-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Server(folder / "primary")
    try:
        run("initdb", "--no-sync", "--auth", "trust", "--username", "postgres",
            "--encoding", "UTF8", "--pgdata", str(server.folder))  # fmt: skip
        with (server.folder / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        server.start()
        yield server
    finally:
        for data in folder.glob("*/"):
            Server(data).stop()
        shutil.rmtree(folder)


def add_standby(primary: Server, name: str = "standby") -> Server:
    """Return a running standby, which the primary's commits wait for."""
    standby = Server(primary.folder.with_name(name))
    run("pg_basebackup", "--checkpoint", "fast", "--no-sync", "--write-recovery-conf",
        "--create-slot", "--slot", name, "--pgdata", str(standby.folder),
        "--dbname", f"host=127.0.0.1 port={primary.port} user=postgres application_name={name}",
    )  # fmt: skip
    standby.start()
    primary.run(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    primary.run("SELECT pg_reload_conf()")
    wait_until(lambda: _is_synchronous(primary), lambda: "The standby does not follow")
    return standby


def _is_synchronous(primary: Server) -> bool:
    with psycopg.connect(primary.url.replace("+psycopg", "")) as connection:
        states = connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall()
    return states == [("sync",)]

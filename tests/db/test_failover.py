"""PostgreSQL's primary dies, hangs, is unreachable or accepts no more connections."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from app.config import Settings
from app.db import migrate
from app.limits import Limits
from app.main import create_app
from tests.clusters import Server, add_standby, needs_cluster, new_server
from tests.helpers import problems_of, rating_rows
from tests.server import DEADLINE_SECONDS, running_server, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.ci, needs_cluster]

RETRY = (503, "1")
# Shorter waits for a server that does not respond. libpq waits for at least 2 s.
IMPATIENT = Limits(ping_timeout=0.5, connect_timeout=2, read_timeout=3.0)


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    """Yield a migrated server for this module."""
    with new_server() as server:
        migrate(server.url)
        yield server


def service_on(url: str, read_url: str | None = None) -> TestClient:
    """Return a client of the service, which has five movies when it is entered."""
    settings = Settings(database_url=url, read_database_url=read_url, busy_timeout=0.5)
    return TestClient(create_app(settings, IMPATIENT), raise_server_exceptions=False)


def ask(client: TestClient, number: int) -> tuple[int, str | None]:
    """Send a read or a write, and return its status and Retry-After."""
    if number % 2:
        response = client.get(f"/movies?offset={number}")
    else:
        response = client.post("/ratings", json={"movie_id": 1, "user_id": number, "score": 5})
    return response.status_code, response.headers.get("Retry-After")


def ask_at_once(client: TestClient, count: int) -> set[tuple[int, str | None]]:
    """Send more reads and writes at once than there are threads, and return the outcomes."""
    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(ask, client, number) for number in range(1, count + 1)]
        return {answer.result(DEADLINE_SECONDS) for answer in answers}


class Relay:
    """Forwards bytes between its port and a server's, until it drops them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._passing = threading.Event()
        self._passing.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._sockets = [self._listener]
        self.url = server.url.replace(str(server.port), str(self._listener.getsockname()[1]))

        self._start(self._accept)

    def close(self) -> None:
        """End all connections."""
        self.pass_on()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def drop(self) -> None:
        """Stop responding, even to a connection's first packet."""
        self._passing.clear()

    def pass_on(self) -> None:
        """Forward again."""
        self._passing.set()

    def _accept(self) -> None:
        while True:
            self._passing.wait()
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server.port))
            self._sockets += [client, server]
            self._start(self._copy, client, server)
            self._start(self._copy, server, client)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(65536):
                self._passing.wait()
                target.sendall(received)
            target.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *ends: socket.socket) -> None:
        threading.Thread(target=work, args=ends, daemon=True).start()


def test_no_acknowledged_rating_is_lost_when_the_primary_dies_and_the_standby_takes_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with new_server() as primary:
        migrate(primary.url)
        standby = add_standby(primary)
        hosts = f"postgresql://postgres@/postgres?{primary.address}&{standby.address}"
        acknowledged: list[int] = []
        refused: list[tuple[int, str | None]] = []
        reads: list[int] = []
        end = threading.Event()

        def rate(client: TestClient, first: int) -> None:
            for user_id in range(first, first + 1_000_000):
                if end.is_set():
                    return
                rating = {"movie_id": user_id % 5 + 1, "user_id": user_id, "score": 5}
                response = client.post("/ratings", json=rating)
                if response.status_code == 204:
                    acknowledged.append(user_id)
                else:
                    refused.append((response.status_code, response.headers.get("Retry-After")))

        def read(client: TestClient) -> None:
            while not end.is_set():
                reads.append(client.get("/movies/top").status_code)

        with (
            service_on(
                f"{hosts}&target_session_attrs=read-write",
                f"{hosts}&target_session_attrs=prefer-standby",
            ) as client,
            ThreadPoolExecutor(5) as pool,
        ):
            work = [pool.submit(rate, client, 1_000_000 * n) for n in range(1, 5)]
            work.append(pool.submit(read, client))
            try:
                wait_until(lambda: len(acknowledged) > 200, lambda: "no rating is stored")
                primary.kill()
                wait_until(lambda: len(refused) > 10, lambda: "no rating is refused")
                standby.promote()
                before = len(acknowledged)
                wait_until(lambda: len(acknowledged) > before + 200, lambda: f"{refused[-1]}")
            finally:
                end.set()
            for done in work:
                done.result(DEADLINE_SECONDS)

        engine = create_engine(standby.url)
        stored = {rating["user_id"] for rating in rating_rows(engine)}
        problems = problems_of(engine)
        engine.dispose()

    assert set(acknowledged) - stored == set()
    assert set(refused) == {RETRY}
    assert set(reads) == {200}
    assert problems == []
    assert "Traceback" not in caplog.text


def test_stopped_server_is_503_until_it_continues(primary: Server) -> None:
    with service_on(primary.url) as client:
        before = ask_at_once(client, 40)
        primary.signal(signal.SIGSTOP)
        try:
            hung = ask_at_once(client, 40)
            ready = client.get("/ready").status_code
        finally:
            primary.signal(signal.SIGCONT)
        after = ask_at_once(client, 40)

    assert before == after == {(200, None), (204, None)}
    assert (hung, ready) == ({RETRY}, 503)


def test_network_that_drops_packets_is_503_until_it_recovers(primary: Server) -> None:
    with closing(Relay(primary)) as relay, service_on(relay.url) as client:
        before = ask_at_once(client, 40)
        relay.drop()
        hung = ask_at_once(client, 40)
        relay.pass_on()
        after = ask_at_once(client, 40)

    assert before == after == {(200, None), (204, None)}
    assert hung == {RETRY}


def test_stopped_replica_is_bypassed(primary: Server) -> None:
    with closing(Relay(primary)) as relay, service_on(primary.url, relay.url) as client:
        before = ask_at_once(client, 40)
        relay.drop()
        first = ask_at_once(client, 40)
        meanwhile = ask_at_once(client, 40)
        missing = client.get("/ready").json()["missing"]

    assert before == meanwhile == {(200, None), (204, None)}
    assert first - before <= {RETRY}
    assert len(missing) == 2


def test_exhausted_pool_is_503_until_a_connection_is_free(primary: Server) -> None:
    with service_on(primary.url) as client:
        assert isinstance(client.app, FastAPI)
        pool = client.app.state.service.database.engine.pool
        with ExitStack() as connections:
            for _ in range(pool.size() + 10):
                connections.enter_context(client.app.state.service.database.engine.connect())
            exhausted = ask_at_once(client, 4)
        after = ask_at_once(client, 4)

    assert exhausted == {RETRY}
    assert after == {(200, None), (204, None)}


def test_workers_without_connections_are_503_until_there_are_some(
    primary: Server, tmp_path: Path
) -> None:
    url = primary.url.replace("+psycopg", "")
    with running_server(tmp_path, workers=2, database_url=primary.url) as server:

        def statuses() -> set[tuple[int, str | None]]:
            # A new connection for each request, so that every worker gets some.
            with httpx.Client(headers={"Connection": "close"}) as client:
                answers = [client.get(f"{server.url}/movies/1") for _ in range(40)]
            return {(a.status_code, a.headers.get("Retry-After")) for a in answers}

        with ExitStack() as taken:
            first = taken.enter_context(psycopg.connect(url, autocommit=True))
            first.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(url, autocommit=True))
            refused = statuses()
        after = statuses()

    assert refused == {RETRY}
    assert after == {(200, None)}
    assert "Traceback" not in server.log.read_text()

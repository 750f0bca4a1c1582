"""Reads from a replica: never stale, and from the primary if the replica fails."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, event

from app.config import Settings
from app.db import migrate
from app.limits import Limits
from app.logs import EventRecord
from app.main import create_app
from tests.clusters import Server, add_standby, needs_cluster, new_server
from tests.server import DEADLINE_SECONDS, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.ci, needs_cluster]

NOT_SET = (
    "synchronous_standby_names is empty on the primary: "
    "a read from a replica may miss an acknowledged write"
)
TOO_FEW = (
    "synchronous_standby_names = 'ANY 1 (standby, other)' waits for 1 of 2 replicas: a read"
    " from another may miss an acknowledged write. Set it to FIRST 2 (...)"
)
GONE = (
    "writes wait for standby, not replicating from the primary. "
    "Start it, or remove it from synchronous_standby_names"
)


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    """Yield a migrated primary without a standby."""
    with new_server() as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="module")
def standby(primary: Server) -> Server:
    """Return the primary's synchronous standby."""
    return add_standby(primary)


@pytest.fixture
def service(primary: Server, standby: Server) -> Iterator[TestClient]:
    """Yield a client of the service, which reads from the standby, with one movie."""
    with service_on(primary, standby) as client:
        yield client


@pytest.fixture
def read_from() -> Iterator[Callable[[], set[int | None]]]:
    """Return the ports of the servers that were read from since its last call."""
    ports: set[int | None] = set()

    def note(connection: Connection, *_: object) -> None:
        ports.add(port_of(connection))

    def ask() -> set[int | None]:
        found = {*ports}
        ports.clear()
        return found

    event.listen(Engine, "after_cursor_execute", note)
    yield ask
    event.remove(Engine, "after_cursor_execute", note)


def port_of(connection: Connection) -> int | None:
    """Return the port of the server that a connection leads to."""
    driver: Any = connection.connection.driver_connection
    port: int | None = driver.info.port
    return port


def service_on(primary: Server, standby: Server) -> TestClient:
    """Return a client of the service, which has the starter movies when it is entered."""
    settings = Settings(database_url=primary.url, read_database_url=standby.url, busy_timeout=1)
    app = create_app(settings, Limits(replica_pause=0.1))
    return TestClient(app, raise_server_exceptions=False)


HELD_UP = """
    SELECT count(*) FROM pg_stat_activity, pg_stat_replication
    WHERE wait_event = 'SyncRep' AND flush_lsn >= pg_current_wal_flush_lsn()
"""


def test_read_from_the_replica_sees_every_acknowledged_write(
    primary: Server,
    standby: Server,
    service: TestClient,
    read_from: Callable[[], set[int | None]],
) -> None:
    rating = {"movie_id": 1, "user_id": 1, "score": 5}
    with ThreadPoolExecutor() as pool:
        standby.run("SELECT pg_wal_replay_pause()")
        try:
            rated = pool.submit(service.post, "/ratings", json=rating)
            # The replica has stored it but does not show it yet.
            wait_until(lambda: rated.done() or primary.value(HELD_UP) == 1, lambda: "No commit")
            acknowledged = rated.done()
            read_from()
            before = service.get("/movies/1").json()["rating_count"]
        finally:
            standby.run("SELECT pg_wal_replay_resume()")
        status = rated.result(DEADLINE_SECONDS).status_code
    after = service.get("/movies/1").json()["rating_count"]

    assert (acknowledged, before, status, after) == (False, 0, 204, 1)
    assert read_from() == {standby.port}
    assert service.get("/ready").json() == {"status": "ok", "missing": []}


def test_reads_use_the_primary_while_the_replica_is_stopped_and_return_to_it(
    primary: Server,
    standby: Server,
    service: TestClient,
    read_from: Callable[[], set[int | None]],
) -> None:
    before = [service.get(path) for path in ("/movies/1", "/movies.csv", "/genres")]

    standby.stop()
    read_from()
    meanwhile = [service.get(path) for path in ("/movies/1", "/movies.csv", "/genres")]
    asked = read_from()
    missing = service.get("/ready").json()["missing"]
    standby.start()

    assert [read.content for read in meanwhile] == [read.content for read in before]
    assert asked == {primary.port}
    assert missing == [
        GONE,
        "no server in MOVIE_READ_DATABASE_URL can be read from: see the log",
    ]

    def is_back() -> bool:
        read_from()
        service.get("/movies/1")
        return read_from() == {standby.port}

    wait_until(is_back, lambda: "The replica is not read again")


def test_read_that_the_replica_cancels_is_answered_by_the_primary(
    primary: Server, standby: Server, service: TestClient, read_from: Callable[[], set[int | None]]
) -> None:
    def conflict(connection: Connection, *_: object) -> None:
        if port_of(connection) != standby.port or has_conflict.is_set():
            return
        has_conflict.set()
        # Remove the row versions that the replica's snapshot still shows.
        primary.run("UPDATE movie SET year = 1973")
        primary.run("VACUUM movie")
        primary.run("UPDATE movie SET year = 1972")

    has_conflict = Event()
    event.listen(Engine, "after_cursor_execute", conflict)
    read_from()
    try:
        read = service.get("/movies?genre=Crime")
    finally:
        event.remove(Engine, "after_cursor_execute", conflict)

    assert (read.status_code, [movie["year"] for movie in read.json()]) == (200, [1972])
    assert primary.port in read_from()


@pytest.mark.parametrize(("setting", "line"), [("", NOT_SET), ("ANY 1 (standby, other)", TOO_FEW)])
def test_ready_and_the_start_name_gaps_in_replication(
    primary: Server,
    standby: Server,
    setting: str,
    line: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    primary.run(f"ALTER SYSTEM SET synchronous_standby_names = '{setting}'")
    primary.run("SELECT pg_reload_conf()")
    try:
        with service_on(primary, standby) as client:
            ready = client.get("/ready")
    finally:
        primary.run("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.run("SELECT pg_reload_conf()")

    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "missing": [line]})
    events = [record for record in caplog.records if isinstance(record, EventRecord)]
    logged = [record for record in events if record.getMessage() == "replicas.incomplete"]
    assert [record.fields["reason"] for record in logged] == [line]

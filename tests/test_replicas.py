"""Reads from a replica: never stale, and from the primary where the replica fails."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from app.config import Settings
from app.main import create_app
from app.migrate import migrate_to_head
from tests.clusters import Server, add_standby, needs_cluster, new_server
from tests.server import DEADLINE_SECONDS, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.ci, needs_cluster]

NOT_SET = (
    "synchronous_standby_names is empty on the primary: "
    "a read from a replica may miss an acknowledged write"
)
TOO_FEW = (
    "synchronous_standby_names = 'ANY 1 (standby, other)' waits for 1 of 2 replicas: a read"
    " from another may miss an acknowledged write. Write FIRST 2 (...)"
)
GONE = (
    "writes wait for standby, which does not follow the primary. "
    "Start it, or take it out of synchronous_standby_names"
)


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    """A migrated primary without a standby."""
    with new_server() as server:
        migrate_to_head(server.url)
        yield server


@pytest.fixture(scope="module")
def standby(primary: Server) -> Server:
    """The primary's synchronous standby."""
    return add_standby(primary)


@pytest.fixture
def service(primary: Server, standby: Server) -> Iterator[TestClient]:
    """A client of the service, which reads from the standby, with one movie."""
    with service_on(primary, standby) as client:
        yield client


@pytest.fixture
def read_from(service: TestClient) -> Callable[[], set[int | None]]:
    """Tells the ports of the servers that have been read from since it was last asked."""
    state = application(service).state
    ports: set[int | None] = set()

    def note(connection: object, *_: object) -> None:
        ports.add(connection.connection.driver_connection.info.port)  # type: ignore[attr-defined]

    def ask() -> set[int | None]:
        found = {*ports}
        ports.clear()
        return found

    for engine in (state.engine, state.replicas.engine):
        event.listen(engine, "after_cursor_execute", note)
    return ask


def service_on(primary: Server, standby: Server) -> TestClient:
    """Return a client of the service, which has one movie when it is entered."""
    app = create_app(
        Settings(database_url=primary.url, read_database_url=standby.url, busy_timeout=1)
    )
    return TestClient(app, raise_server_exceptions=False)


def application(client: TestClient) -> FastAPI:
    """Return the application that a client talks to."""
    assert isinstance(client.app, FastAPI)
    return client.app


HELD_UP = """
    SELECT count(*) FROM pg_stat_activity, pg_stat_replication
    WHERE wait_event = 'SyncRep' AND flush_lsn >= pg_current_wal_flush_lsn()
"""


def test_a_read_from_the_replica_sees_what_was_acknowledged(
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
            # The replica has stored it and does not show it.
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


def test_reads_go_on_from_the_primary_while_the_replica_is_gone_and_return_to_it(
    primary: Server,
    standby: Server,
    service: TestClient,
    read_from: Callable[[], set[int | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.replicas.replicas.PAUSE", 0.1)
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
        "no server of MOVIE_READ_DATABASE_URL can be read from, the log says why",
    ]

    def is_back() -> bool:
        read_from()
        service.get("/movies/1")
        return read_from() == {standby.port}

    wait_until(is_back, lambda: "The replica is not read from again")


def test_a_read_that_the_replica_cancels_is_answered_by_the_primary(
    primary: Server, service: TestClient, read_from: Callable[[], set[int | None]]
) -> None:
    replicas: Engine = application(service).state.replicas.engine

    def conflict(*_: object) -> None:
        event.remove(replicas, "after_cursor_execute", conflict)
        # Rows that the replica's snapshot still shows, removed for good.
        primary.run("UPDATE movie SET year = 1973")
        primary.run("VACUUM movie")
        primary.run("UPDATE movie SET year = 1972")

    event.listen(replicas, "after_cursor_execute", conflict)
    read_from()
    read = service.get("/movies?genre=Crime")

    assert (read.status_code, [movie["year"] for movie in read.json()]) == (200, [1972])
    assert primary.port in read_from()


@pytest.mark.parametrize(("setting", "line"), [("", NOT_SET), ("ANY 1 (standby, other)", TOO_FEW)])
def test_ready_and_the_start_say_what_replication_lacks(
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
    assert line in caplog.text

"""Reads on SQLite: they start on the event loop, and never keep it waiting."""

import gc
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlmodel import Session

from app import db, kept_connections
from app.config import Settings
from app.db import create_db_engine
from app.dependencies import get_repository, get_session
from app.kept_connections import KeptConnections
from app.main import create_app
from app.repository import MovieRepository
from tests.helpers import SAMPLES, store
from tests.operations import READING
from tests.server import DEADLINE_SECONDS, serving

# Without what reads nothing, or always in a worker thread.
READS = [
    *(op.url for op in READING if not re.search(r"/health|/recommendations|\.csv", op.path)),
    "/movies?q=a&sort=-average_rating&limit=3&offset=1",
    "/movies?genre=Sci-Fi&year_min=1970",
    "/movies/top?genre=Drama&limit=100&ranking=weighted",
    "/movies/999",
    "/ratings?movie_id=3&limit=1",
]
BUSY = {"detail": "The database is busy, try again in a moment"}
UNAVAILABLE = {"detail": "The database cannot be used at the moment"}


def application(database_url: str, **settings: Any) -> FastAPI:  # noqa: ANN401 - settings of any type
    """Return an application that reads from its database every time."""
    return create_app(
        Settings(database_url=database_url, auto_setup=False, read_cache=False, **settings)
    )


class Threads:
    """Notes in which threads the statements of an application run, until they are taken."""

    def __init__(self, app: FastAPI) -> None:
        self.seen: set[int] = set()
        self.elsewhere = threading.Event()
        self._loop: int | None = None
        event.listen(app.state.engine, "do_connect", self._note)
        event.listen(app.state.engine, "before_cursor_execute", self._note)

    def start(self, client: TestClient) -> None:
        """Note from now on, and how the thread of the client's event loop is called."""
        assert client.portal is not None
        self._loop = client.portal.call(threading.get_ident)
        self.seen.clear()
        self.elsewhere.clear()

    def take(self) -> set[str]:
        """Return ``event loop`` and ``worker`` as statements have run there, and forget them."""
        seen = {"event loop" if thread == self._loop else "worker" for thread in self.seen}
        self.seen.clear()
        return seen

    def _note(self, *_: object) -> None:
        self.seen.add(threading.get_ident())
        if threading.get_ident() != self._loop:
            self.elsewhere.set()


def answer(response: httpx2.Response) -> tuple[int, str, dict[str, str]]:
    """Return all of a response but its trace id."""
    headers = {name: value for name, value in response.headers.items() if name != "x-trace-id"}
    return response.status_code, response.text, headers


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Keep everybody else from reading."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def path_without_wal(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database on a file system that cannot hold a WAL, where a writer shuts out readers."""
    monkeypatch.setattr(db, "_use_wal", lambda *_: None)
    path = tmp_path / "movies.db"
    engine = create_db_engine(sqlite_url)
    store(engine, *SAMPLES)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    return path


def test_an_interrupted_read_returns_what_an_undisturbed_one_does(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = application(sqlite_url)
    store(undisturbed.state.engine, *SAMPLES)
    threads = Threads(undisturbed)
    with TestClient(undisturbed) as client:
        threads.start(client)
        expected = {url: answer(client.get(url)) for url in READS}
        assert threads.take() == {"event loop"}
    monkeypatch.setattr(kept_connections, "DEADLINE", -1.0)
    monkeypatch.setattr(kept_connections, "STEPS", 1)
    interrupted = application(sqlite_url)
    threads = Threads(interrupted)

    with TestClient(interrupted) as client:
        threads.start(client)
        for url in READS:
            assert answer(client.get(url)) == expected[url], url
            assert threads.take() == {"event loop", "worker"}, url
            with interrupted.state.engine.connect() as connection:
                # Cannot empty the WAL while anybody reads.
                result = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                assert result.one()[0] == 0, url
            threads.seen.clear()


def test_a_read_waits_for_a_lock_in_a_worker_thread_while_others_are_answered(
    path_without_wal: Path,
) -> None:
    app = application(f"sqlite:///{path_without_wal}", busy_timeout=20)
    threads = Threads(app)
    with TestClient(app) as client, ThreadPoolExecutor(1) as pool:
        threads.start(client)
        with exclusive_lock(path_without_wal):
            waiting = pool.submit(client.get, "/movies/1")
            assert threads.elsewhere.wait(DEADLINE_SECONDS)
            health = client.get("/health")
            answered_too_early = waiting.done()
        movie = waiting.result()

    assert health.status_code == 200
    assert not answered_too_early
    assert (movie.status_code, movie.json()["title"]) == (200, SAMPLES[0].title)


def test_a_read_that_meets_a_lock_for_too_long_is_503_and_succeeds_afterwards(
    path_without_wal: Path,
) -> None:
    app = application(f"sqlite:///{path_without_wal}", busy_timeout=0.05)
    with TestClient(app, raise_server_exceptions=False) as client:
        with exclusive_lock(path_without_wal):
            refused = [client.get(url) for url in ("/movies", "/movies/1", "/ratings")]
        statuses = [client.get(url).status_code for url in ("/movies", "/movies/1", "/ratings")]

    assert [(read.status_code, read.json()) for read in refused] == [(503, BUSY)] * 3
    assert {read.headers["Retry-After"] for read in refused} == {"1"}
    assert statuses == [200] * 3


@pytest.mark.slow
@pytest.mark.ci
def test_reads_do_not_queue_behind_searches_of_87_000_movies(sqlite_url: str) -> None:
    app = application(sqlite_url, log_level="ERROR")
    with app.state.engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number "
            "WHERE n < 87000) INSERT INTO movie (title, search_title, year, genre) "
            "SELECT 'Movie ' || n, 'movie ' || n, 2000, 'Drama' FROM number"
        )
    searching = 8
    finished = count()
    have_enough = threading.Event()
    all_search = threading.Barrier(searching + 1)

    with serving(app) as server, ThreadPoolExecutor(searching) as pool:

        def search() -> None:
            with server.client() as client:
                all_search.wait(DEADLINE_SECONDS)
                while not have_enough.is_set():
                    assert client.get("/movies?q=nobody-has-this").json() == []
                    next(finished)

        searches = [pool.submit(search) for _ in range(searching)]
        with server.client() as client:
            all_search.wait(DEADLINE_SECONDS)
            try:
                before = next(finished)
                statuses = {
                    client.get(path).status_code
                    for _ in range(40)
                    for path in ("/movies/7", "/health")
                }
                meanwhile = next(finished) - before
            finally:
                have_enough.set()
        for each in searches:
            each.result()

    assert statuses == {200}
    # Each of the 80 reads would wait for 8 searches if it queued.
    assert meanwhile < 320


def override_session(app: FastAPI) -> None:
    """Put in a session of the same database."""

    async def own_session() -> Session:
        return Session(app.state.engine)

    app.dependency_overrides[get_session] = own_session


def override_repository(app: FastAPI) -> None:
    """Put in a repository of the same database."""

    async def own_repository() -> MovieRepository:
        return MovieRepository(Session(app.state.engine))

    app.dependency_overrides[get_repository] = own_repository


@pytest.mark.parametrize("override", [override_session, override_repository])
def test_what_somebody_has_put_in_never_runs_on_the_event_loop(
    sqlite_url: str, override: Callable[[FastAPI], None]
) -> None:
    app = application(sqlite_url)
    store(app.state.engine, *SAMPLES)
    override(app)
    threads = Threads(app)

    with TestClient(app) as client:
        threads.start(client)
        statuses = [client.get(url).status_code for url in ("/movies", "/movies/1", "/ratings")]
        statuses += [client.post("/ratings", json={"movie_id": 1, "score": 3}).status_code]

    assert statuses == [200, 200, 200, 204]
    assert threads.take() == {"worker"}


def test_a_thread_that_ends_gives_its_connection_back(sqlite_url: str) -> None:
    engine = create_db_engine(sqlite_url)
    kept = KeptConnections(engine, 1.0, WeakSet())

    def read() -> None:
        with kept.reading() as connection:
            connection.exec_driver_sql("SELECT 1")

    gc.disable()  # it may come late
    try:
        for _ in range(3):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        still_out = engine.pool.checkedout()  # type: ignore[attr-defined] # a QueuePool
    finally:
        gc.enable()
        engine.dispose()

    assert still_out == 0


def test_requests_outside_of_a_lifespan_do_not_use_up_the_connections(sqlite_url: str) -> None:
    app = application(sqlite_url)
    store(app.state.engine, *SAMPLES)
    client = TestClient(app)  # each request has an event loop and a thread of its own

    gc.disable()
    try:
        statuses = {client.get("/movies/1").status_code for _ in range(30)}
    finally:
        gc.enable()
        app.state.engine.dispose()

    assert statuses == {200}


@pytest.mark.parametrize("starts", [1, 3])
def test_an_application_that_has_ended_holds_no_file_open_and_can_start_again(
    sqlite_url: str, tmp_path: Path, starts: int
) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False))
    store(app.state.engine, *SAMPLES)
    statuses = set()

    for start in range(starts):
        with (
            TestClient(app, raise_server_exceptions=False) as client,
            ThreadPoolExecutor(8) as pool,
        ):

            def write_and_read(number: int, start: int = start, client: Any = client) -> set[int]:  # noqa: ANN401 - bound early
                movie = {"title": f"Movie {start}.{number}", "year": 2000}
                return {
                    client.post("/movies", json=movie).status_code,
                    client.post("/ratings", json={"movie_id": 1, "score": 3}).status_code,
                    client.get("/movies").status_code,
                }

            for found in pool.map(write_and_read, range(16)):
                statuses |= found

    assert statuses == {200, 201, 204}
    opened = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    assert not {name for name in opened if name.startswith(str(tmp_path))}


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Make every read of this process from its open files in a folder fail."""
    opened = [
        int(link.name)
        for link in Path("/proc/self/fd").iterdir()
        if link.is_symlink()
        and link.readlink().is_relative_to(folder)
        and link.readlink().suffix != ".db-shm"  # it holds the locks
    ]
    copies = {number: os.dup(number) for number in opened}
    with Path(os.devnull).open("wb") as not_for_reading:
        for number in opened:
            os.dup2(not_for_reading.fileno(), number)
    yield
    for number, copy in copies.items():
        os.dup2(copy, number)
        os.close(copy)


def test_a_disk_that_cannot_be_read_is_503_and_leaves_no_transaction_open(
    sqlite_url: str, tmp_path: Path
) -> None:
    app = application(sqlite_url)
    store(app.state.engine, *SAMPLES)
    with TestClient(app, raise_server_exceptions=False) as client:
        with closing(sqlite3.connect(tmp_path / "movies.db")) as other, other:
            other.execute("UPDATE rating SET score = 1")  # so that no page is in memory
        with unreadable(tmp_path):
            refused = client.get("/ratings?movie_id=1")
        afterwards = client.get("/ratings?movie_id=1")

    assert (refused.status_code, refused.json()) == (503, UNAVAILABLE)
    assert afterwards.status_code == 200

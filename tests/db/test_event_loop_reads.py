"""Reads on SQLite start on the event loop and never block it."""

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

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event
from sqlmodel import Session

from app.config import Settings
from app.db import create_db_engine
from app.db.transactions import Deadline, KeptConnections
from app.dependencies import get_repository, get_session, service_of
from app.limits import Limits
from app.main import create_app
from app.repository import MovieRepository
from tests.helpers import SAMPLES, store
from tests.operations import READING
from tests.server import DEADLINE_SECONDS, serving

# All reads, except those that read nothing or always use a worker thread.
READS = [
    *(op.url for op in READING if not re.search(r"/health|/ready|/recommendations|\.csv", op.path)),
    "/movies?q=a&sort=-average_rating&limit=3&offset=1",
    "/movies?genre=Sci-Fi&year_min=1970",
    "/movies/top?genre=Drama&limit=100&ranking=weighted",
    "/movies/999",
    "/ratings?movie_id=3&limit=1",
]
BUSY = {"detail": "The database is busy, try again in a moment"}
UNAVAILABLE = {"detail": "The database cannot be used at the moment"}


def application(
    database_url: str,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    **settings: Any,  # noqa: ANN401 - settings of any type
) -> FastAPI:
    """Return an application without a read cache."""
    return create_app(
        Settings(database_url=database_url, auto_setup=False, read_cache=False, **settings), limits
    )


def engine_of(app: FastAPI) -> Engine:
    """Return the engine of an application."""
    return service_of(app).database.engine


class Threads:
    """Records in which threads the statements of an application run."""

    def __init__(self, app: FastAPI) -> None:
        self.seen: set[int] = set()
        self.elsewhere = threading.Event()
        self._loop: int | None = None
        event.listen(engine_of(app), "do_connect", self._note)
        event.listen(engine_of(app), "before_cursor_execute", self._note)

    def start(self, client: TestClient) -> None:
        """Find out the thread of the client's event loop, and record from now on."""
        assert client.portal is not None
        self._loop = client.portal.call(threading.get_ident)
        self.seen.clear()
        self.elsewhere.clear()

    def take(self) -> set[str]:
        """Return where statements have run, ``event loop`` or ``worker``, and clear the record."""
        seen = {"event loop" if thread == self._loop else "worker" for thread in self.seen}
        self.seen.clear()
        return seen

    def _note(self, *_: object) -> None:
        self.seen.add(threading.get_ident())
        if threading.get_ident() != self._loop:
            self.elsewhere.set()


def parts(response: httpx2.Response) -> tuple[int, str, dict[str, str]]:
    """Return a response without its trace id."""
    headers = {name: value for name, value in response.headers.items() if name != "x-trace-id"}
    return response.status_code, response.text, headers


# A SQLite VFS without shared memory, as on a network file system: without a WAL, a writer blocks
# readers.
WITHOUT_WAL = "vfs=unix-dotfile"


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Lock out readers."""
    uri = f"{path.as_uri()}?{WITHOUT_WAL}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def path_without_wal(sqlite_url: str, tmp_path: Path) -> Path:
    """Return a database with movies that is not in WAL mode."""
    path = tmp_path / "movies.db"
    engine = create_db_engine(sqlite_url)
    store(engine, *SAMPLES)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    return path


def application_without_wal(path: Path, busy_timeout: float) -> FastAPI:
    """Return an application on a file system that cannot hold a WAL."""
    app = application(f"sqlite:///{path}", busy_timeout=busy_timeout)

    @event.listens_for(engine_of(app), "do_connect")
    def use_vfs(_dialect: object, _entry: object, args: list[str], options: Any) -> None:  # noqa: ANN401 - the driver's options
        args[0], options["uri"] = f"{path.as_uri()}?{WITHOUT_WAL}", True

    return app


def test_interrupted_read_returns_the_same_as_an_undisturbed_one(
    sqlite_url: str,
) -> None:
    undisturbed = application(sqlite_url, Limits(read_deadline=60))
    store(engine_of(undisturbed), *SAMPLES)
    threads = Threads(undisturbed)
    with TestClient(undisturbed) as client:
        threads.start(client)
        expected = {url: parts(client.get(url)) for url in READS}
        assert threads.take() == {"event loop"}
    interrupted = application(sqlite_url, Limits(read_deadline=-1.0, read_steps=1))
    threads = Threads(interrupted)

    with TestClient(interrupted) as client:
        threads.start(client)
        for url in READS:
            assert parts(client.get(url)) == expected[url], url
            assert threads.take() == {"event loop", "worker"}, url
            with engine_of(interrupted).connect() as connection:
                # Cannot empty the WAL while another connection reads.
                result = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                assert result.one()[0] == 0, url
            threads.seen.clear()


def test_read_waits_for_a_lock_in_a_worker_thread_while_others_are_answered(
    path_without_wal: Path,
) -> None:
    app = application_without_wal(path_without_wal, busy_timeout=60)
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


def test_read_blocked_for_too_long_is_503_and_succeeds_afterwards(
    path_without_wal: Path,
) -> None:
    app = application_without_wal(path_without_wal, busy_timeout=0.05)
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
    with engine_of(app).begin() as connection:
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
    """Override the session with another one on the same database."""

    async def own_session() -> Session:
        return Session(engine_of(app))

    app.dependency_overrides[get_session] = own_session


def override_repository(app: FastAPI) -> None:
    """Override the repository with another one on the same database."""

    async def own_repository() -> MovieRepository:
        return MovieRepository(Session(engine_of(app)))

    app.dependency_overrides[get_repository] = own_repository


@pytest.mark.parametrize("override", [override_session, override_repository])
def test_reads_with_overridden_dependencies_run_on_the_event_loop(
    sqlite_url: str, override: Callable[[FastAPI], None]
) -> None:
    app = application(sqlite_url)
    store(engine_of(app), *SAMPLES)
    override(app)
    threads = Threads(app)

    with TestClient(app) as client:
        threads.start(client)
        reads = [client.get(url).status_code for url in ("/movies", "/movies/1", "/ratings")]
        read_in = threads.take()
        write = client.post("/ratings", json={"movie_id": 1, "score": 3}).status_code
        written_in = threads.take()

    assert (reads, read_in) == ([200] * 3, {"event loop"})
    assert (write, written_in) == (204, {"worker"})


def test_threads_that_end_leave_their_connection_to_others(sqlite_url: str) -> None:
    engine = create_db_engine(sqlite_url)
    connections = KeptConnections(engine, 1.0, file=None, deadline=Deadline(), steps=2000)

    def read() -> None:
        with connections.reading() as connection:
            connection.exec_driver_sql("SELECT 1")

    for _ in range(3):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    in_use = engine.pool.checkedout()  # type: ignore[attr-defined] # a QueuePool
    connections.close()
    in_use_after_close = engine.pool.checkedout()  # type: ignore[attr-defined] # a QueuePool
    engine.dispose()

    assert (in_use, in_use_after_close) == (1, 0)


def test_requests_outside_a_lifespan_do_not_use_up_the_connections(sqlite_url: str) -> None:
    app = application(sqlite_url)
    store(engine_of(app), *SAMPLES)
    client = TestClient(app)  # each request has its own event loop and thread

    gc.disable()  # it would return connections that the requests do not
    try:
        statuses = {client.get("/movies/1").status_code for _ in range(30)}
    finally:
        gc.enable()
        engine_of(app).dispose()

    assert statuses == {200}


@pytest.mark.parametrize("starts", [1, 3])
def test_stopped_application_holds_no_file_open_and_can_start_again(
    sqlite_url: str, tmp_path: Path, starts: int
) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False))
    store(engine_of(app), *SAMPLES)
    statuses = set()

    for start in range(starts):
        with (
            TestClient(app, raise_server_exceptions=False) as client,
            ThreadPoolExecutor(8) as pool,
        ):

            def write_and_read(number: int, start: int = start, client: Any = client) -> set[int]:  # noqa: ANN401 - bound now
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
        and link.readlink().suffix != ".db-shm"  # contains the locks
    ]
    copies = {number: os.dup(number) for number in opened}
    with Path(os.devnull).open("wb") as not_for_reading:
        for number in opened:
            os.dup2(not_for_reading.fileno(), number)
    yield
    for number, copy in copies.items():
        os.dup2(copy, number)
        os.close(copy)


def test_unreadable_disk_is_503_and_leaves_no_transaction_open(
    sqlite_url: str, tmp_path: Path
) -> None:
    app = application(sqlite_url)
    store(engine_of(app), *SAMPLES)
    with TestClient(app, raise_server_exceptions=False) as client:
        with closing(sqlite3.connect(tmp_path / "movies.db")) as other, other:
            other.execute("UPDATE rating SET score = 1")  # makes the service drop its cached pages
        with unreadable(tmp_path):
            refused = client.get("/ratings?movie_id=1")
        afterwards = client.get("/ratings?movie_id=1")

    assert (refused.status_code, refused.json()) == (503, UNAVAILABLE)
    assert afterwards.status_code == 200

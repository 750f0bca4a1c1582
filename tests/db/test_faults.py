"""Killed servers, locked databases, full disks and unusable files."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import uvicorn
from alembic import command
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from app.backup.copy import backup
from app.backup.restore import restore
from app.config import PROJECT_ROOT, Settings
from app.db import create_db_engine, writing
from app.dependencies import service_of
from app.errors import SetupError
from app.main import create_app
from app.repository import MovieRepository
from tests.databases import ENGINES, locked, new_database
from tests.helpers import movie_rows, problems_of, rating_rows
from tests.server import (
    Commands,
    ServerProcess,
    alembic_config,
    running_server,
    serving,
    wait_until,
)

KILLS = 3
RATING_CLIENTS = 4

BUSY = {"detail": "The database is busy, try again in a moment"}
FULL = {"detail": "The database's disk is full, nothing was stored"}
READS = ("/health", "/ready", "/movies", "/movies/1", "/movies/top", "/ratings")
WRITES: tuple[tuple[str, str, dict[str, object] | None, int], ...] = (
    ("POST", "/movies", {"title": "Arrival", "year": 2016}, 201),
    ("PUT", "/movies/1", {"title": "Inception", "year": 2010}, 200),
    ("PATCH", "/movies/2", {"year": 1999}, 200),
    ("DELETE", "/movies/3", None, 204),
    ("POST", "/ratings", {"movie_id": 4, "user_id": 1, "score": 5}, 204),
    ("DELETE", "/movies/5/ratings/1", None, 204),
)

# Without this privilege, permissions apply to root, too.
WITHOUT_PRIVILEGES = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
SERVE = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"]
# Serves each database with and without auto_setup, and prints the exit codes.
SERVE_EACH = """
import sys
import uvicorn
from app.config import Settings
from app.main import create_app

for url in sys.argv[1:]:
    for auto_setup in (True, False):
        app = create_app(Settings(database_url=url, auto_setup=auto_setup))
        try:
            uvicorn.run(app, port=0, log_config=None)
        except SystemExit as ending:
            print(ending.code)
"""


@pytest.fixture(params=ENGINES)
def catalogue_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield a new database with five movies, the last of which user 1 has rated."""
    with new_database(request.param, tmp_path, migrated=True) as url:
        engine = create_db_engine(url)
        with Session(engine) as session:
            repository = MovieRepository(session)
            for number in range(1, 6):
                repository.create(title=f"Movie {number}", year=2000)
            repository.add_rating(5, 3, user_id=1)
        engine.dispose()
        yield url


class RatingLoad:
    """Clients that rate the starter movies until their server is killed.

    Every second rating of a client replaces an earlier one. No two clients share a user id.
    """

    def __init__(self) -> None:
        # The last score of each (movie_id, user_id) that was sent, and that was acknowledged.
        self.sent: dict[tuple[int, int], int] = {}
        self.acknowledged: dict[tuple[int, int], int] = {}

    def rate_until_gone(self, server: ServerProcess, first_user_id: int) -> None:
        """Send ratings until the connection breaks."""
        with server.client() as client:
            for count in range(1_000_000):
                movie_id, user_id = count % 5 + 1, first_user_id + count // 10
                score = (count + count // 5) % 5 + 1
                self.sent[movie_id, user_id] = score
                rating = {"movie_id": movie_id, "user_id": user_id, "score": score}
                try:
                    response = client.post("/ratings", json=rating)
                except httpx.TransportError:
                    return
                assert response.status_code == 204, response.text
                self.acknowledged[movie_id, user_id] = score

    def rate_until_killed(self, server: ServerProcess, kill: int) -> None:
        """Rate with several clients, and kill the server meanwhile."""
        before = len(self.acknowledged)
        # Kill at different points of the load.
        enough = before + 10 + kill * 37 % 100
        with ThreadPoolExecutor(RATING_CLIENTS) as pool:
            clients = [
                pool.submit(self.rate_until_gone, server, (kill * RATING_CLIENTS + client) * 10_000)
                for client in range(1, RATING_CLIENTS + 1)
            ]
            wait_until(
                lambda: len(self.acknowledged) >= enough,
                lambda: "too few ratings were acknowledged",
            )
            server.kill()
            for client in clients:
                client.result()


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("engine_name", ENGINES)
def test_acknowledged_ratings_survive_kills(engine_name: str, tmp_path: Path) -> None:
    load = RatingLoad()
    with new_database(engine_name, tmp_path) as url:
        for kill in range(KILLS):
            with running_server(tmp_path, database_url=url) as server:
                load.rate_until_killed(server, kill)

        engine = create_db_engine(url)
        stored = {(row["movie_id"], row["user_id"]): row["score"] for row in rating_rows(engine)}
        problems = problems_of(engine)
        engine.dispose()

    # A rating without a response may be stored or not.
    lost = {
        key: score
        for key, score in load.acknowledged.items()
        if stored.get(key) not in (score, load.sent[key])
    }
    assert lost == {}
    assert stored.items() <= {*load.sent.items(), *load.acknowledged.items()}
    assert problems == []


def test_database_locked_for_too_long_is_503_and_recovers(
    catalogue_url: str,
) -> None:
    app = create_app(Settings(database_url=catalogue_url, busy_timeout=0.3))
    with (
        serving(app) as server,
        server.client() as client,
        ThreadPoolExecutor(len(WRITES)) as pool,
    ):
        reads: list[httpx.Response] = []
        with locked(catalogue_url):
            waiting = [
                pool.submit(client.request, method, path, json=body)
                for method, path, body, _ in WRITES
            ]
            while not all(write.done() for write in waiting):
                reads += [client.get(path) for path in READS]
            refused = [write.result() for write in waiting]
        done = [
            client.request(method, path, json=body).status_code for method, path, body, _ in WRITES
        ]

    assert [(write.status_code, write.json()) for write in refused] == [(503, BUSY)] * len(WRITES)
    assert {write.headers["Retry-After"] for write in refused} == {"1"}
    assert {read.status_code for read in reads} == {200}
    assert done == [status for *_, status in WRITES]


def test_writers_wait_for_a_lock_while_reads_are_answered(
    catalogue_url: str,
) -> None:
    writers = 24  # more than there are threads
    app = create_app(Settings(database_url=catalogue_url, busy_timeout=60))
    with (
        serving(app) as server,
        server.client() as client,
        ThreadPoolExecutor(writers) as pool,
    ):
        with locked(catalogue_url):
            waiting = [
                pool.submit(client.post, "/ratings", json={"movie_id": 1, "score": 4})
                for _ in range(writers)
            ]
            reads = [client.get(path) for _ in range(10) for path in READS]
            answered_too_early = [write for write in waiting if write.done()]
        statuses = [write.result().status_code for write in waiting]
        movie = client.get("/movies/1").json()

    assert {read.status_code for read in reads} == {200}
    assert answered_too_early == []
    assert statuses == [204] * writers
    assert movie["rating_count"] == writers


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("workers", [1, 2])
def test_request_in_flight_is_completed_before_the_server_ends(
    catalogue_url: str, tmp_path: Path, workers: int
) -> None:
    body = b'{"movie_id": 1, "user_id": 7, "score": 5}'
    head = (
        "POST /ratings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with running_server(tmp_path, workers=workers, database_url=catalogue_url) as server:
        with server.connect() as connection, connection.makefile("rb") as answer:
            with locked(catalogue_url):
                connection.sendall(head.encode())
                # The route has asked for the body: the request is in flight.
                assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
                assert answer.readline() == b"\r\n"
                connection.sendall(body)
                server.process.send_signal(signal.SIGTERM)
                wait_until(
                    lambda: any("Waiting for connections to close" in x for x in server.lines()),
                    lambda: "\n".join(server.lines()),
                )
            status_line = answer.readline()
        exit_code = server.process.wait(60)

    engine = create_db_engine(catalogue_url)
    ratings = rating_rows(engine)
    engine.dispose()
    assert status_line == b"HTTP/1.1 204 No Content\r\n"
    # A single uvicorn shuts down and then ends by the signal, as supervisors expect.
    assert exit_code == (-signal.SIGTERM if workers == 1 else 0)
    assert ratings[1:] == [{"id": 2, "movie_id": 1, "user_id": 7, "score": 5}]


class PageLimit:
    """A size limit on the application's connections, which acts like a full disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pages = 2**31

    def attach(self, engine: Engine) -> None:
        """Apply the limit to an engine."""

        @event.listens_for(engine, "before_cursor_execute")
        def limit(_connection: Connection, cursor: DBAPICursor, *_: object) -> None:
            cursor.execute(f"PRAGMA max_page_count={self._pages}")

    def fill(self) -> None:
        """Leave no room."""
        self._pages = 1

    def make_room(self) -> None:
        """Leave room again."""
        self._pages = 2**31


class SmallFileSystem:
    """An in-memory file system of one megabyte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def attach(self, engine: Engine) -> None:
        """Do nothing: the file system limits all processes."""

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(512))

    def make_room(self) -> None:
        """Leave room again."""
        self._filler.unlink()


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[SmallFileSystem]:
    """Yield a file system to fill up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not sys.platform.startswith("linux") or mount is None or umount is None:
        pytest.skip("needs Linux with mount")
    arguments = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run([mount, *arguments], capture_output=True, check=False).returncode:  # noqa: S603 - fixed arguments
        pytest.skip("needs a user who may mount: run it as root")
    yield SmallFileSystem(folder)
    subprocess.run([umount, str(folder)], check=True)  # noqa: S603 - fixed arguments


@pytest.fixture(params=["page limit", "file system"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> PageLimit | SmallFileSystem:
    """Return a disk to fill up."""
    if request.param == "page limit":
        return PageLimit(tmp_path)
    small: SmallFileSystem = request.getfixturevalue("small_file_system")
    return small


@pytest.mark.slow
def test_full_disk_is_507_and_leaves_the_database_sound(
    disk: PageLimit | SmallFileSystem, sqlite_template: Path
) -> None:
    path = disk.folder / "movies.db"
    shutil.copy(sqlite_template, path)
    app = create_app(Settings(database_url=f"sqlite:///{path}", auto_setup=False))
    engine = service_of(app).database.engine
    disk.attach(engine)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.post("/movies", json={"title": "Heat", "year": 1995})

        disk.fill()
        movies = post_until_refused(
            client, "/movies", lambda n: {"title": f"{n:0300}", "year": 2000}
        )
        ratings = post_until_refused(
            client, "/ratings", lambda n: {"movie_id": 1, "user_id": n + 1, "score": 5}
        )
        reads = [client.get(path) for path in READS]
        stored = (
            len(movie_rows(engine)),
            len(rating_rows(engine)),
        )
        problems = problems_of(engine)

        disk.make_room()
        statuses = [
            client.post("/movies", json={"title": "Alien", "year": 1979}).status_code,
            client.post("/ratings", json={"movie_id": 1, "score": 1}).status_code,
        ]
        problems += problems_of(engine)

    assert [(last.status_code, last.json()) for last in (movies[-1], ratings[-1])] == [
        (507, FULL)
    ] * 2
    assert {response.status_code for response in movies[:-1]} <= {201}
    assert {response.status_code for response in ratings[:-1]} <= {204}
    assert [read.status_code for read in reads] == [200] * len(READS)
    assert stored == (len(movies), len(ratings) - 1)  # one movie was there before
    assert statuses == [201, 204]
    assert problems == []


def test_full_disk_inside_a_nested_write_is_reported_as_such(
    tmp_path: Path, sqlite_url: str
) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False))
    disk = PageLimit(tmp_path)
    disk.attach(service_of(app).database.engine)
    with TestClient(app):
        session = service_of(app).database.session()
        repository = MovieRepository(session)
        repository.create(title="Heat", year=1995)
        disk.fill()
        with pytest.raises(OperationalError, match="disk is full"):
            rate_together(session, repository)
        disk.make_room()

        assert repository.list_ratings() == []


def rate_together(session: Session, repository: MovieRepository) -> None:
    """Store more ratings in one transaction than the pages of a small database hold."""
    with writing(session):
        for _ in range(10_000):
            repository.add_rating(1, score=5)


@pytest.mark.slow
def test_backup_to_a_full_disk_is_an_error_and_leaves_no_file(
    small_file_system: SmallFileSystem, sqlite_url: str
) -> None:
    target = small_file_system.folder / "copy.db"
    small_file_system.fill()

    with pytest.raises(SetupError) as error:
        backup(sqlite_url, target)

    assert str(error.value) == f"Cannot write {target}: No space left on device."
    assert [path.name for path in small_file_system.folder.iterdir()] == ["filler"]


@pytest.mark.slow
@pytest.mark.ci
def test_restore_to_a_disk_that_fills_up_leaves_a_sound_database(
    small_file_system: SmallFileSystem, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, older = small_file_system.folder / "movies.db", Path(sqlite_url[10:])
    shutil.copy(older, database)
    monkeypatch.setenv("MOVIE_DATABASE_URL", sqlite_url)
    # Migrating the copy makes it grow during the restore.
    command.downgrade(alembic_config(PROJECT_ROOT), "a1f0c2d4e6b8")
    add_movies = """
        WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 300)
        INSERT INTO movie (title, search_title, year) SELECT '? ' || n, '? ' || n, 2000 FROM count
    """
    outcomes = []
    for size in range(300, 5100, 300):
        with closing(sqlite3.connect(older)) as copy, copy:
            copy.execute(add_movies.replace("?", str(size)))
        try:
            restore(f"sqlite:///{database}", older)
        except SetupError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("restored")
        with closing(sqlite3.connect(database)) as restored:
            [problem] = restored.execute("PRAGMA integrity_check").fetchone()
            [movies] = restored.execute("SELECT count(*) FROM movie").fetchone()
        assert problem == "ok"
        assert movies == outcomes.count("restored") * 300

    assert outcomes[0] == "restored"
    assert outcomes[-1].endswith("No space left on device.")


def post_until_refused(
    client: TestClient, path: str, body: Callable[[int], dict[str, object]]
) -> list[Response]:
    """Send bodies until one is refused, and return all responses."""
    responses: list[Response] = []
    while not responses or responses[-1].is_success:
        assert len(responses) < 10_000, "the disk is never full"
        responses.append(client.post(path, json=body(len(responses))))
    return responses


class Unusable(NamedTuple):
    """A database that the service cannot use.

    Attributes:
        path: of its file in the test's folder, or a PostgreSQL URL.
        explanation: the error at start-up.
        prepare: creates the file, given its path and a migrated database to copy.
    """

    path: str
    explanation: str
    prepare: Callable[[Path, Path], object] = lambda _path, _template: None

    def url(self, folder: Path) -> str:
        """Return the URL of the database."""
        return self.path if "://" in self.path else f"sqlite:///{folder / self.path}"

    def log(self, folder: Path) -> str:
        """Return the errors that a server logs at start-up."""
        explanation = self.explanation.format(path=folder / self.path)
        return f"ERROR {explanation}\nERROR Application startup failed. Exiting."


def copy_with_a_movie(path: Path, template: Path) -> None:
    """Copy a migrated database and store a movie, so that no starter movies are loaded."""
    shutil.copy(template, path)
    engine = create_db_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        MovieRepository(session).create(title="Heat", year=1995)
    engine.dispose()


def execute(path: Path, statement: str) -> None:
    """Change a SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def read_only_file(path: Path, template: Path) -> None:
    """Forbid writing to the file."""
    copy_with_a_movie(path, template)
    path.chmod(0o444)


def read_only_folder(path: Path, template: Path) -> None:
    """Forbid new files in the folder, which SQLite needs."""
    copy_with_a_movie(path, template)
    path.parent.chmod(0o555)


def forbidden_folder(path: Path, template: Path) -> None:
    """Forbid entering the folder of the file."""
    path.parent.mkdir()
    copy_with_a_movie(path, template)
    path.parent.chmod(0o000)


def from_a_newer_version(path: Path, template: Path) -> None:
    """Store an unknown revision."""
    copy_with_a_movie(path, template)
    execute(path, "UPDATE alembic_version SET version_num = 'f00000000001'")


READ_ONLY = (
    "The database file {path} is read-only.\nAllow this user to write to it and to its folder."
)
FORBIDDEN = {
    "file": Unusable("movies.db", READ_ONLY, read_only_file),
    "folder": Unusable("movies.db", READ_ONLY, read_only_folder),
    "folder that may not be entered": Unusable(
        "inside/movies.db",
        "Cannot open the database file {path}: Permission denied.\n"
        "Let this user into its folder, or name another file in MOVIE_DATABASE_URL.",
        forbidden_folder,
    ),
}
UNUSABLE = {
    "no folder": Unusable(
        "missing/movies.db",
        "Cannot open the database file {path}.\n"
        "Create its folder, or name another file in MOVIE_DATABASE_URL.",
    ),
    "not a database": Unusable(
        "letters.txt",
        "{path} is not a SQLite database. Nothing was changed.\n"
        "Name another file in MOVIE_DATABASE_URL.",
        lambda path, _: path.write_text("Dear Sir or Madam, " * 1000),
    ),
    "of another program": Unusable(
        "videos.db",
        "The database {path} has tables of another program. Nothing was changed.\n"
        "Name another file in MOVIE_DATABASE_URL.",
        lambda path, _: execute(path, "CREATE TABLE movie (id INTEGER PRIMARY KEY, name TEXT)"),
    ),
    "of a newer version": Unusable(
        "movies.db",
        "The database's schema is at revision f00000000001, which this version of the service "
        "does not know.\nIt comes from a newer version: run that one. Nothing was changed.",
        from_a_newer_version,
    ),
    "out of reach": Unusable(
        "postgresql+psycopg://postgres:secret@127.0.0.1:1/test",
        "Cannot use the database postgresql+psycopg://postgres:***@127.0.0.1:1/test: "
        'connection failed: connection to server at "127.0.0.1", port 1 failed: '
        "Connection refused\nCheck that the server runs and that MOVIE_DATABASE_URL is right.",
    ),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def complaints(log: str) -> str:
    """Return a server's log without INFO lines and times."""
    lines = [line for line in log.splitlines() if " INFO " not in line]
    return "\n".join(re.sub(r"^\S+Z (?=ERROR )", "", line) for line in lines)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for an unusable database."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("database", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_database_is_explained_at_start_up_and_left_unchanged(
    database: Unusable, data: Path, sqlite_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database.prepare(data / database.path, sqlite_template)
    before = contents(data)

    app = create_app(Settings(database_url=database.url(data)))
    capsys.readouterr()  # discards the log of the preparation
    with pytest.raises(SystemExit) as ending:
        uvicorn.run(app, port=0, log_config=None)

    assert complaints(capsys.readouterr().err) == database.log(data)
    assert ending.value.code == 3
    assert contents(data) == before


@pytest.mark.slow
@pytest.mark.ci
def test_inaccessible_database_is_explained_at_start_up_and_left_unchanged(
    tmp_path: Path, sqlite_template: Path
) -> None:
    urls, expected = [], []
    for database, folder in zip(FORBIDDEN.values(), "abc", strict=True):
        data = tmp_path / folder
        data.mkdir()
        database.prepare(data / database.path, sqlite_template)
        urls.append(database.url(data))
        expected += [database.log(data)] * 2
    before = contents(tmp_path)

    # One process, because starting one takes a second.
    command = [*WITHOUT_PRIVILEGES, sys.executable, "-c", SERVE_EACH, *urls]
    finished = Commands(tmp_path).run(command)

    assert complaints(finished.errors) == "\n".join(expected)
    assert finished.output.split() == ["3"] * len(expected)
    assert contents(tmp_path) == before


@pytest.mark.slow
@pytest.mark.ci
def test_server_ends_if_none_of_its_workers_can_start(tmp_path: Path) -> None:
    database = UNUSABLE["not a database"]
    database.prepare(tmp_path / database.path, tmp_path)

    commands = Commands(tmp_path, database_url=database.url(tmp_path))
    # uvicorn's parent process waits for its timeout of 5 s. A lower one would kill slow workers.
    finished = commands.run([*SERVE, "--workers", "2"])

    # The parent process exits with 0 nevertheless.
    assert database.log(tmp_path).splitlines()[0] in finished.errors
    assert "Traceback" not in finished.errors

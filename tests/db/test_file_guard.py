"""The SQLite file is deleted, moved, replaced or overwritten while the service runs."""

import gc
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.backup.copy import backup
from app.config import Settings
from app.db import create_db_engine
from app.db.file_guard import DatabaseFile, guarded
from app.errors import DatabaseFileReplaced, SetupError
from app.limits import Limits
from app.main import create_app
from tests.helpers import Sample, problems_of, rating_rows, store
from tests.logs import events
from tests.server import running_server, wait_until

REPLACED = {
    "detail": "The database file was deleted, replaced or overwritten while the service was "
    "running. Restart the service."
}
READS = ("/movies", "/movies/1", "/movies/top", "/ratings", "/ready")
RATING = {"movie_id": 1, "user_id": 1, "score": 5}


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Path:
    """Return a database with a movie, in its own folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = Path(shutil.copy(sqlite_template, folder / "movies.db"))
    engine = create_db_engine(f"sqlite:///{path}")
    store(engine, Sample("Heat", 1995, "Crime"))
    engine.dispose()
    return path


@pytest.fixture
def other(database: Path) -> Path:
    """Return a backup of the database with a second movie."""
    path = database.with_name("other.db")
    backup(f"sqlite:///{database}", path)
    engine = create_db_engine(f"sqlite:///{path}")
    store(engine, Sample("Alien", 1979, "Sci-Fi"))
    engine.dispose()
    return path


@contextmanager
def service(database: Path, limits: Limits = Limits()) -> Iterator[TestClient]:  # noqa: B008 - immutable
    """Run the service in this process."""
    app = create_app(Settings(database_url=f"sqlite:///{database}", auto_setup=False), limits)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def users(database: Path) -> set[int]:
    """Return the users who rated in a database, after checking that it is sound."""
    engine = create_db_engine(f"sqlite:///{database}")
    problems, rows = problems_of(engine), rating_rows(engine)
    engine.dispose()
    assert problems == []
    return {row["user_id"] for row in rows}


def delete(database: Path, _other: Path) -> None:
    """As ``rm movies.db`` does."""
    database.unlink()


def move_away(database: Path, _other: Path) -> None:
    """As ``mv movies.db old.db`` does."""
    database.rename(database.with_name("old.db"))


def move_the_folder(database: Path, _other: Path) -> None:
    """Move the folder and its content."""
    database.parent.rename(database.parent.with_name("elsewhere"))


def move_another_over(database: Path, other: Path) -> None:
    """As ``mv other.db movies.db`` does."""
    other.replace(database)


def overwrite(database: Path, other: Path) -> None:
    """As ``cp other.db movies.db`` does: the same file with other content."""
    shutil.copyfile(other, database)


def write_the_same_again(database: Path, _other: Path) -> None:
    """As ``cp earlier.db movies.db`` does with a copy that has the same header."""
    database.write_bytes(database.read_bytes())


def truncate(database: Path, _other: Path) -> None:
    """Leave an empty file."""
    os.truncate(database, 0)


def overwrite_with_text(database: Path, _other: Path) -> None:
    """As ``echo ... > movies.db`` does."""
    database.write_text("Dear Sir or Madam")


FAULTS = [
    delete,
    move_away,
    move_the_folder,
    move_another_over,
    overwrite,
    write_the_same_again,
    truncate,
    overwrite_with_text,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_served_after_the_file_was_removed_replaced_or_overwritten(
    fault: Callable[[Path, Path], None],
    database: Path,
    other: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = database.parent
    with service(database) as client:
        client.post("/ratings", json=RATING)
        before = [client.get(path).status_code for path in READS * 2]
        fault(database, other)
        left = database.read_bytes() if database.exists() else None

        reads = [client.get(path) for path in READS]
        writes = [
            client.post("/ratings", json=RATING),
            client.post("/movies", json={"title": "Ran", "year": 1985}),
            client.delete("/movies/1"),
        ]
        health = client.get("/health")

    assert before == [200] * len(before)
    assert [(x.status_code, x.json()) for x in reads + writes] == [(503, REPLACED)] * 8
    assert {x.headers["Retry-After"] for x in reads + writes} == {"1"}
    assert health.json() == {"status": "ok"}
    reports = [e for e in events(capsys.readouterr().err, "text") if e["level"] == "ERROR"]
    assert [(e["event"], e["file"]) for e in reports] == [("database.replaced", str(database))]
    # The service has neither created a file there nor written to the one that it found.
    assert (database.read_bytes() if database.exists() else None) == left
    assert folder.exists() == (fault is not move_the_folder)


def test_file_that_is_put_back_is_served_after_a_restart(database: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{database}", auto_setup=False))
    with TestClient(app) as client:
        database.rename(database.with_name("elsewhere.db"))
        missing = client.get("/ready")
        database.with_name("elsewhere.db").rename(database)
        put_back = client.get("/ready")
    with TestClient(app) as client:
        restarted = client.get("/ready")

    assert [x.status_code for x in (missing, put_back, restarted)] == [503, 503, 200]


def test_inaccessible_file_is_served_again_once_it_is_accessible(database: Path) -> None:
    elsewhere = database.with_name("elsewhere.db")
    with service(database) as client:
        database.rename(elsewhere)
        database.symlink_to(database)  # a loop, which fails like a missing permission
        refused = client.post("/ratings", json=RATING)
        database.unlink()
        elsewhere.rename(database)
        rated = client.post("/ratings", json=RATING)

    assert refused.status_code == 503
    assert refused.json() == {"detail": "The database cannot be used at the moment"}
    assert rated.status_code == 204


@pytest.mark.parametrize("replace", [False, True], ids=["deleted", "replaced"])
def test_nothing_is_served_without_the_wal(database: Path, *, replace: bool) -> None:
    wal = database.with_name("movies.db-wal")
    content = database.read_bytes()
    with service(database) as client:
        before = client.post("/ratings", json=RATING)
        wal.unlink()
        if replace:
            wal.touch()

        responses = [client.get(path) for path in READS]
        responses.append(client.post("/ratings", json=RATING | {"user_id": 2}))

    assert before.status_code == 204
    assert [(x.status_code, x.json()) for x in responses] == [(503, REPLACED)] * len(responses)
    if replace:
        # The -wal is another program's, whose reads must not change.
        assert database.read_bytes() == content
    else:
        # SQLite still had the -wal open, and copied it into the file at the end.
        assert users(database) == {1}


@pytest.mark.parametrize("replace", [False, True], ids=["deleted", "replaced"])
def test_no_write_is_acknowledged_without_the_shm(database: Path, *, replace: bool) -> None:
    shm = database.with_name("movies.db-shm")
    with service(database) as client:
        before = client.post("/ratings", json=RATING)
        shm.unlink()
        if replace:
            shm.touch()

        responses = [client.post("/ratings", json=RATING | {"user_id": 2}), client.get("/ready")]

    assert before.status_code == 204
    assert [(x.status_code, x.json()) for x in responses] == [(503, REPLACED)] * 2


# During a transaction, and between requests.


@contextmanager
def just_before(client: TestClient, verb: str, act: Callable[[], object]) -> Iterator[None]:
    """Act once, before the service executes a statement that starts with a verb."""
    engine = client.app.state.service.database.engine  # type: ignore[attr-defined] # TestClient knows ASGI only
    done: list[object] = []

    def listener(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(verb) and not done:
            done.append(act())

    event.listen(engine, "before_cursor_execute", listener)
    yield
    event.remove(engine, "before_cursor_execute", listener)
    assert done


@pytest.mark.parametrize("fault", FAULTS)
def test_write_is_not_acknowledged_if_the_file_changes_before_its_commit(
    fault: Callable[[Path, Path], None], database: Path, other: Path
) -> None:
    with service(database) as client:
        client.post("/ratings", json=RATING)
        with just_before(client, "INSERT", lambda: fault(database, other)):
            response = client.post("/ratings", json=RATING | {"user_id": 2})

    assert (response.status_code, response.json()) == (503, REPLACED)


@pytest.mark.parametrize("fault", FAULTS)
def test_read_fails_if_the_file_changes_before_its_end(
    fault: Callable[[Path, Path], None], database: Path, other: Path
) -> None:
    with service(database) as client, just_before(client, "SELECT", lambda: fault(database, other)):
        response = client.get("/movies")

    assert (response.status_code, response.json()) == (503, REPLACED)


@pytest.mark.parametrize("fault", [delete, move_another_over])
def test_new_connection_creates_no_file_and_changes_no_other(
    fault: Callable[[Path, Path], None], database: Path, other: Path
) -> None:
    engine = create_db_engine(f"sqlite:///{database}")
    with guarded(engine, 60):
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM movie")
        engine.dispose()
        fault(database, other)
        left = database.read_bytes() if database.exists() else None

        with pytest.raises(DatabaseFileReplaced):
            engine.connect()

    assert (database.read_bytes() if database.exists() else None) == left


def test_missing_file_is_not_created(database: Path) -> None:
    engine = create_db_engine(f"sqlite:///{database}")
    database.unlink()

    with (
        pytest.raises(SetupError, match=f"^Cannot open the database file {database}"),
        guarded(engine, 60),
    ):
        pass

    assert not database.exists()


def test_link_to_another_file_is_detected(database: Path, other: Path) -> None:
    link = database.with_name("link.db")
    link.symlink_to(database)
    with service(link) as client:
        before = client.post("/ratings", json=RATING)
        link.unlink()
        link.symlink_to(other)

        response = client.post("/ratings", json=RATING)

    assert before.status_code == 204
    assert (response.status_code, response.json()) == (503, REPLACED)


# After the service has ended.


def frames_beside(database: Path) -> int:
    """Return the bytes that SQLite would replay into a database when it is opened."""
    wal = database.with_name(f"{database.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


@pytest.mark.parametrize("put", [move_another_over, overwrite])
@pytest.mark.parametrize("requests", [1, 0], ids=["detected", "not detected"])
def test_replacing_file_stays_unchanged(
    put: Callable[[Path, Path], None], requests: int, database: Path, other: Path
) -> None:
    content = other.read_bytes()
    with service(database) as client:
        client.post("/ratings", json=RATING)
        put(database, other)
        for _ in range(requests):
            client.post("/ratings", json=RATING)

    assert database.read_bytes() == content
    assert frames_beside(database) == 0


@pytest.mark.parametrize("requests", [1, 0], ids=["detected", "not detected"])
def test_acknowledged_writes_are_in_the_file_that_was_moved_away(
    requests: int, database: Path
) -> None:
    moved = database.with_name("moved.db")
    with service(database) as client:
        client.post("/ratings", json=RATING)
        database.rename(moved)
        for _ in range(requests):
            client.post("/ratings", json=RATING | {"user_id": 2})

    assert users(moved) >= {1}
    assert not database.exists()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_wal_of_an_overwritten_file_is_set_aside_unchanged(database: Path, method: str) -> None:
    with service(database) as client:
        client.post("/ratings", json=RATING)
        written = database.with_name("movies.db-wal").read_bytes()
        database.write_bytes(database.read_bytes())
        client.request(method, "/movies", json={"title": "Ran", "year": 1985})

        files = sorted(path.name for path in database.parent.iterdir())

    # The next process to open the database reads the new content only.
    assert files == ["movies.db", "movies.db-wal.set-aside"]
    assert database.with_name("movies.db-wal.set-aside").read_bytes() == written


def test_closing_the_last_connection_leaves_an_overwritten_file_unchanged(
    database: Path, other: Path
) -> None:
    file = DatabaseFile(str(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE movie SET year = 1996")
    overwrite(database, other)
    with pytest.raises(DatabaseFileReplaced):
        file.check()
    file.close()

    # Python closes an unreferenced connection, as it closes all of them when the process ends.
    del file
    gc.collect()

    assert database.read_bytes() == other.read_bytes()


def test_overwritten_file_that_is_then_moved_stays_unchanged(database: Path, other: Path) -> None:
    content, moved = other.read_bytes(), database.with_name("moved.db")
    with service(database) as client:
        client.post("/ratings", json=RATING)
        overwrite(database, other)
        client.get("/movies")
        database.rename(moved)

    assert moved.read_bytes() == content


def test_overwritten_file_is_detected_without_a_request(database: Path, other: Path) -> None:
    aside = database.with_name("movies.db-wal.set-aside")
    with service(database, Limits(file_check_interval=0.01)):
        overwrite(database, other)

        wait_until(aside.exists, lambda: "The -wal is not set aside")


@pytest.mark.parametrize(
    ("position", "written"),
    [(18, b"\1\1"), (24, b"\0\0\0\0"), (0, b"Dear Sir or Madam")],
    ids=["journal mode", "change counter", "text"],
)
def test_foreign_header_is_detected_despite_a_checkpoint(
    database: Path, position: int, written: bytes
) -> None:
    file = DatabaseFile(str(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE movie SET year = 1996")
        connection.execute("PRAGMA wal_checkpoint")
        file.check()
        connection.execute("UPDATE movie SET year = 1997")
        connection.execute("PRAGMA wal_checkpoint")
        with database.open("r+b") as opened:
            opened.seek(position)
            opened.write(written)

        with pytest.raises(DatabaseFileReplaced):
            file.check()
    file.close()


def test_worker_relies_on_another_that_detected_the_overwrite(database: Path) -> None:
    wal = database.with_name("movies.db-wal")
    earlier = database.with_name("earlier.db")
    shutil.copyfile(database, earlier)
    file = DatabaseFile(str(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE movie SET year = 1996")
        # For the service, this checkpoint explains the file's new modification time.
        connection.execute("PRAGMA wal_checkpoint")
        connection.execute("UPDATE movie SET year = 1997")

    shutil.copyfile(earlier, database)
    wal.rename(wal.with_name("movies.db-wal.set-aside"))
    with pytest.raises(DatabaseFileReplaced):
        file.check()
    file.close()

    assert database.read_bytes() == earlier.read_bytes()
    assert frames_beside(database) == 0


@pytest.mark.slow
@pytest.mark.ci
def test_backup_copied_over_the_file_of_two_workers_stays_unchanged(
    database: Path, other: Path, tmp_path: Path
) -> None:
    content = other.read_bytes()
    # A new connection for each request, so that both workers get some.
    headers = {"Connection": "close"}
    with (
        running_server(tmp_path, workers=2, database_url=f"sqlite:///{database}") as server,
        server.client() as client,
        ThreadPoolExecutor(4) as pool,
    ):

        def rate(user_id: int) -> int:
            body = RATING | {"user_id": user_id}
            return client.post("/ratings", json=body, headers=headers).status_code

        before = set(pool.map(rate, range(1, 40)))
        overwrite(database, other)
        after = set(pool.map(rate, range(40, 80)))
        server.stop()

    assert before == {204}
    assert after == {503}
    assert "Traceback" not in server.log.read_text()
    assert database.read_bytes() == content
    assert frames_beside(database) == 0


# Changes that must not count as a replaced file.


def test_checkpoints_vacuum_and_other_writers_are_not_taken_for_a_replaced_file(
    database: Path,
) -> None:
    file = DatabaseFile(str(database))
    others_are_done = threading.Event()
    sizes: set[int] = set()

    def check() -> None:
        while not others_are_done.is_set():
            file.check_all()

    def use(mode: str) -> None:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            # Faster, and power is not cut in this test.
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA wal_autocheckpoint=10")
            connection.execute("CREATE TABLE IF NOT EXISTS junk (filling)")
            for number in range(30):
                connection.execute("INSERT INTO junk VALUES (randomblob(50000))")
                connection.execute(f"PRAGMA wal_checkpoint({mode})")
                if number % 10 == 9:
                    connection.execute("DELETE FROM junk")
                    connection.execute("VACUUM")
                sizes.add(database.stat().st_size)

    with ThreadPoolExecutor(6) as pool:
        watchers = [pool.submit(check) for _ in range(2)]
        try:
            list(pool.map(use, ("PASSIVE", "FULL", "RESTART", "TRUNCATE")))
        finally:
            others_are_done.set()
        for watcher in watchers:
            watcher.result()
    file.check_all()
    file.close()

    # The file has changed, so the checks had something to detect.
    assert len(sizes) > 1

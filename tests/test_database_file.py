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

from app import database_file
from app.backup.copy import backup
from app.config import Settings
from app.database_file import DatabaseFile, guarded
from app.db import create_db_engine
from app.errors import DatabaseFileReplaced, SetupError
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
    """A database with a movie, in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = Path(shutil.copy(sqlite_template, folder / "movies.db"))
    engine = create_db_engine(f"sqlite:///{path}")
    store(engine, Sample("Heat", 1995, "Crime"))
    engine.dispose()
    return path


@pytest.fixture
def other(database: Path) -> Path:
    """A backup of the database with one movie more."""
    path = database.with_name("other.db")
    backup(f"sqlite:///{database}", path)
    engine = create_db_engine(f"sqlite:///{path}")
    store(engine, Sample("Alien", 1979, "Sci-Fi"))
    engine.dispose()
    return path


@contextmanager
def service(database: Path) -> Iterator[TestClient]:
    """Run the service in this process."""
    app = create_app(Settings(database_url=f"sqlite:///{database}", auto_setup=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def users(database: Path) -> set[int]:
    """Return the users who have rated in a database, which must be sound."""
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
    """Move the folder with all that is in it."""
    database.parent.rename(database.parent.with_name("elsewhere"))


def move_another_over(database: Path, other: Path) -> None:
    """As ``mv other.db movies.db`` does."""
    other.replace(database)


def overwrite(database: Path, other: Path) -> None:
    """As ``cp other.db movies.db`` does: the file stays the same, its content does not."""
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
def test_nothing_is_served_from_a_file_that_is_not_the_one_that_was_opened(
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
    # Neither has the service made a file in its place, nor written to the one it found there.
    assert (database.read_bytes() if database.exists() else None) == left
    assert folder.exists() == (fault is not move_the_folder)


def test_a_file_that_is_put_back_is_served_after_a_restart(database: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{database}", auto_setup=False))
    with TestClient(app) as client:
        database.rename(database.with_name("elsewhere.db"))
        missing = client.get("/ready")
        database.with_name("elsewhere.db").rename(database)
        put_back = client.get("/ready")
    with TestClient(app) as client:
        restarted = client.get("/ready")

    assert [x.status_code for x in (missing, put_back, restarted)] == [503, 503, 200]


def test_a_file_that_cannot_be_looked_at_is_served_again_when_it_can(database: Path) -> None:
    elsewhere = database.with_name("elsewhere.db")
    with service(database) as client:
        database.rename(elsewhere)
        database.symlink_to(database)  # in circles, which is as good as no permission
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
        # It is somebody else's, and what that one reads must not change.
        assert database.read_bytes() == content
    else:
        # SQLite still had it open, and copied it at the end.
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


# In the midst of a transaction, and between the requests.


@contextmanager
def just_before(client: TestClient, verb: str, act: Callable[[], object]) -> Iterator[None]:
    """Act once, when the service is about to send its database such a statement."""
    engine = client.app.state.engine  # type: ignore[attr-defined] # TestClient knows ASGI only
    done: list[object] = []

    def listener(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(verb) and not done:
            done.append(act())

    event.listen(engine, "before_cursor_execute", listener)
    yield
    event.remove(engine, "before_cursor_execute", listener)
    assert done


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_is_not_acknowledged_if_the_file_goes_before_its_commit(
    fault: Callable[[Path, Path], None], database: Path, other: Path
) -> None:
    with service(database) as client:
        client.post("/ratings", json=RATING)
        with just_before(client, "INSERT", lambda: fault(database, other)):
            response = client.post("/ratings", json=RATING | {"user_id": 2})

    assert (response.status_code, response.json()) == (503, REPLACED)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_is_not_answered_if_the_file_goes_before_its_end(
    fault: Callable[[Path, Path], None], database: Path, other: Path
) -> None:
    with service(database) as client, just_before(client, "SELECT", lambda: fault(database, other)):
        response = client.get("/movies")

    assert (response.status_code, response.json()) == (503, REPLACED)


@pytest.mark.parametrize("fault", [delete, move_another_over])
def test_a_new_connection_neither_makes_a_file_nor_touches_another_one(
    fault: Callable[[Path, Path], None], database: Path, other: Path
) -> None:
    with service(database) as client:
        client.post("/ratings", json=RATING)
        client.app.state.kept.close()  # type: ignore[attr-defined] # TestClient knows ASGI only
        client.app.state.engine.dispose()  # type: ignore[attr-defined]
        fault(database, other)
        left = database.read_bytes() if database.exists() else None

        response = client.get("/movies")

    assert (response.status_code, response.json()) == (503, REPLACED)
    assert (database.read_bytes() if database.exists() else None) == left


def test_a_file_that_goes_before_it_is_opened_is_not_made_anew(database: Path) -> None:
    engine = create_db_engine(f"sqlite:///{database}")
    database.unlink()

    with (
        pytest.raises(SetupError, match=f"^Cannot open the database file {database}"),
        guarded(engine),
    ):
        pass

    assert not database.exists()


def test_a_link_that_is_turned_to_another_file_is_noticed(database: Path, other: Path) -> None:
    link = database.with_name("link.db")
    link.symlink_to(database)
    with service(link) as client:
        before = client.post("/ratings", json=RATING)
        link.unlink()
        link.symlink_to(other)

        response = client.post("/ratings", json=RATING)

    assert before.status_code == 204
    assert (response.status_code, response.json()) == (503, REPLACED)


# What is there when the service has ended.


def frames_beside(database: Path) -> int:
    """Return the size of what SQLite would replay into a database when it is opened."""
    wal = database.with_name(f"{database.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


@pytest.mark.parametrize("put", [move_another_over, overwrite])
@pytest.mark.parametrize("requests", [1, 0], ids=["noticed", "not noticed"])
def test_the_file_that_was_put_in_the_place_stays_as_it_is(
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


@pytest.mark.parametrize("requests", [1, 0], ids=["noticed", "not noticed"])
def test_what_was_acknowledged_is_in_the_file_that_was_moved_away(
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
def test_the_wal_of_an_overwritten_file_is_set_aside_as_it_was(database: Path, method: str) -> None:
    with service(database) as client:
        client.post("/ratings", json=RATING)
        written = database.with_name("movies.db-wal").read_bytes()
        database.write_bytes(database.read_bytes())
        client.request(method, "/movies", json={"title": "Ran", "year": 1985})

        files = sorted(path.name for path in database.parent.iterdir())

    # Whoever opens the database now finds what was put there and no more.
    assert files == ["movies.db", "movies.db-wal.set-aside"]
    assert database.with_name("movies.db-wal.set-aside").read_bytes() == written


def test_not_even_the_end_of_the_process_writes_to_an_overwritten_file(
    database: Path, other: Path
) -> None:
    file = DatabaseFile(str(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE movie SET year = 1996")
    overwrite(database, other)
    with pytest.raises(DatabaseFileReplaced):
        file.check()
    file.close()

    # Python closes a connection that nothing refers to, as it does with all at its end.
    del file
    gc.collect()

    assert database.read_bytes() == other.read_bytes()


def test_an_overwritten_file_that_is_then_moved_stays_as_it_is(database: Path, other: Path) -> None:
    content, moved = other.read_bytes(), database.with_name("moved.db")
    with service(database) as client:
        client.post("/ratings", json=RATING)
        overwrite(database, other)
        client.get("/movies")
        database.rename(moved)

    assert moved.read_bytes() == content


def test_it_is_noticed_without_a_request(
    database: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "LOOK_INTERVAL", 0.01)
    aside = database.with_name("movies.db-wal.set-aside")
    with service(database):
        overwrite(database, other)

        wait_until(aside.exists, lambda: "nobody has noticed")


@pytest.mark.parametrize(
    ("position", "written"),
    [(18, b"\1\1"), (24, b"\0\0\0\0"), (0, b"Dear Sir or Madam")],
    ids=["journal mode", "change counter", "text"],
)
def test_another_header_is_noticed_though_a_checkpoint_has_written_too(
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


def test_a_worker_that_cannot_tell_believes_the_one_that_can(database: Path) -> None:
    wal = database.with_name("movies.db-wal")
    earlier = database.with_name("earlier.db")
    shutil.copyfile(database, earlier)
    file = DatabaseFile(str(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE movie SET year = 1996")
        # It may as well have been this that has written to the file since the last look.
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
def test_a_backup_that_is_copied_over_the_file_of_two_workers_survives_them(
    database: Path, other: Path, tmp_path: Path
) -> None:
    content = other.read_bytes()
    with (
        running_server(tmp_path, workers=2, database_url=f"sqlite:///{database}") as server,
        ThreadPoolExecutor(4) as pool,
    ):

        def rate(user_id: int) -> int:
            with server.client() as client:
                return client.post("/ratings", json=RATING | {"user_id": user_id}).status_code

        before = set(pool.map(rate, range(1, 40)))
        overwrite(database, other)
        after = set(pool.map(rate, range(40, 80)))
        server.stop()

    assert before == {204}
    assert after == {503}
    assert "Traceback" not in server.log.read_text()
    assert database.read_bytes() == content
    assert frames_beside(database) == 0


# What must not be taken for it.


def test_nothing_that_others_do_with_the_database_is_taken_for_a_foreign_write(
    database: Path,
) -> None:
    file = DatabaseFile(str(database))
    others_are_done = threading.Event()
    sizes: set[int] = set()

    def look() -> None:
        while not others_are_done.is_set():
            file.check_all()

    def use(mode: str) -> None:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            # Faster, and nobody cuts the power.
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
        watchers = [pool.submit(look) for _ in range(2)]
        try:
            list(pool.map(use, ("PASSIVE", "FULL", "RESTART", "TRUNCATE")))
        finally:
            others_are_done.set()
        for watcher in watchers:
            watcher.result()
    file.check_all()
    file.close()

    # So there was something to notice.
    assert len(sizes) > 1

"""PostgreSQL: faults that SQLite does not have, and searches that return the same as on SQLite."""

import json
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection, NullPool, create_engine, event, make_url
from sqlmodel import Session

from app.checks import data_problems, problems
from app.config import Settings
from app.db import create_db_engine, migrate
from app.db.migrations import MIGRATION_LOCK
from app.errors import SetupError
from app.main import create_app
from app.repository import MovieRepository
from tests.databases import needs_postgresql, new_postgresql
from tests.helpers import rating_rows
from tests.server import wait_until

OUT_OF_REACH = {"detail": "The database cannot be used at the moment"}
NO_SCHEMA = {
    "detail": "The database has no schema or an older one. Run: uv run alembic upgrade head"
}
BUSY = {"detail": "The database is busy, try again in a moment"}
FULL = {"detail": "The database's disk is full, nothing was stored"}
NO_PERMISSION = {
    "detail": "The service's database role lacks permissions: it needs SELECT, INSERT, UPDATE and "
    "DELETE on the tables, and USAGE and SELECT on the sequences."
}
SEQUENCE_BEHIND = {
    "detail": "An id sequence is missing or behind the stored ids, nothing was stored. "
    "To get the fix, run: uv run python scripts/db.py check"
}
BEHIND = (
    "TABLE: the next id is 1, but ids up to 1 are taken. "
    "Run in psql: SELECT setval('public.TABLE_id_seq', max(id)) FROM TABLE;"
)
FIVE_STARS = {"movie_id": 1, "user_id": 1, "score": 5}

# Mixed case, accents, letters whose case folding is longer, LIKE's wildcards, several scripts, and
# characters outside the first plane, which sorting by UTF-16 would misplace.
TITLES = (
    "Heat", "heat", "HEAT 2", "Heat!", "heat's end", "(Heat)", "100% Wolf", "1001 Wolves",
    "snake_case", "snakeXcase", "back\\slash", "back/slash", '"Quoted"', "'Quoted'", "[REC]",
    "*batteries", "Amélie", "AMÉLIE", "amelie", "Ame\u030alie", "Éternité", "éternité", "Zebra",
    "zebra", "Æon Flux", "Œuvre", "œuvre", "Straße", "STRASSE", "\u0130stanbul", "\u0131spanak",
    "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3", "Οδυσσέας", "Дом", "дом", "東京物語",
    "千と千尋", "שלום", "\ufb01lm", "\uffee end of the plane", "😀 smile", "😀Smile",
    "\U0001d573eat", "𐐀 Deseret", "𐐨 deseret", "a b", "a-b", "a.b", "ab", "aB", "Ab",
)  # fmt: skip


@needs_postgresql
def test_searches_and_sorts_return_the_same_on_both_engines(
    sqlite_url: str, postgres_url: str
) -> None:
    characters = {character.strip() for title in TITLES for character in title}
    pairs = {title[start : start + 2].strip() for title in TITLES for start in range(len(title))}
    typos = {title[:2] + title[3:] for title in TITLES} | {title[1:] for title in TITLES}
    searches = characters | pairs | typos | {title.swapcase() for title in TITLES}
    searches |= {"%", "_", "\\%", "heat 2000", "heat 1999", "a b ab"}

    found = []
    for url in (sqlite_url, postgres_url):
        engine = create_db_engine(url)
        with Session(engine) as session:
            repository = MovieRepository(session)
            for n, title in enumerate(sorted(TITLES, key=lambda title: title[::-1])):
                repository.create(title=title, year=2000)
                if n % 3:
                    repository.add_rating(n + 1, 4)
            pages = {search: repository.list(q=search, limit=1000) for search in searches}
            by_title = repository.list(sort="title", limit=1000)
        engine.dispose()
        assert all(title in [m.title for m in pages[title.swapcase()]] for title in TITLES)
        titles = {
            search: ([movie.title for movie in page], page.total, page.searched_for)
            for search, page in pages.items()
        }
        found.append((titles, [movie.title for movie in by_title]))

    assert found[0] == found[1]
    assert any(searched_for for _, _, searched_for in found[0][0].values())


@pytest.fixture
def service(postgres_url: str) -> Iterator[TestClient]:
    """Yield a client of the application on PostgreSQL, with one movie."""
    app = create_app(Settings(database_url=postgres_url, auto_setup=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/movies", json={"title": "Heat", "year": 1995}).status_code == 201
        yield client


@pytest.fixture
def administrator(postgres_url: str) -> Iterator[Connection]:
    """Yield a connection outside the service, in autocommit mode."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def end_backends(administrator: Connection) -> int:
    """Close all other connections on the server's side, as its restart does.

    Returns:
        The number of connections.
    """
    # Wait up to a minute for each thread to end.
    ended = administrator.exec_driver_sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(ended.all())


@contextmanager
def fault(administrator: Connection, statement: str, *, at_commit: bool = False) -> Iterator[None]:
    """Run a statement of PL/pgSQL when a rating is inserted, or when it is committed."""
    administrator.exec_driver_sql(
        "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {statement}; RETURN NEW; END $$"
    )
    timing = (
        "CONSTRAINT TRIGGER fault AFTER INSERT ON rating DEFERRABLE INITIALLY DEFERRED"
        if at_commit
        else "TRIGGER fault BEFORE INSERT ON rating"
    )
    administrator.exec_driver_sql(f"CREATE {timing} FOR EACH ROW EXECUTE FUNCTION fault()")
    try:
        yield
    finally:
        administrator.exec_driver_sql("DROP FUNCTION fault CASCADE")


def application(client: TestClient) -> FastAPI:
    """Return the application of a client."""
    assert isinstance(client.app, FastAPI)
    return client.app


@needs_postgresql
def test_pool_survives_a_restart_of_the_server(
    service: TestClient, administrator: Connection
) -> None:
    engine = application(service).state.service.database.engine
    with ExitStack() as connections:
        for _ in range(10):
            connections.enter_context(engine.connect())

    ended = end_backends(administrator)
    with ThreadPoolExecutor(8) as pool:
        ratings = [
            pool.submit(service.post, "/ratings", json=FIVE_STARS | {"user_id": user_id})
            for user_id in range(1, 31)
        ]
        statuses = {rating.result().status_code for rating in ratings}

    assert ended >= 10
    assert statuses == {204}
    assert service.get("/movies/1").json()["rating_count"] == 30


@needs_postgresql
@pytest.mark.parametrize("at_commit", [False, True], ids=["at the insert", "at the commit"])
def test_connection_that_breaks_within_a_request_is_503_and_stores_nothing(
    service: TestClient, administrator: Connection, *, at_commit: bool
) -> None:
    breaks = "PERFORM pg_terminate_backend(pg_backend_pid())"
    with fault(administrator, breaks, at_commit=at_commit):
        broken = service.post("/ratings", json=FIVE_STARS)
    stored = rating_rows(application(service).state.service.database.engine)
    again = service.post("/ratings", json=FIVE_STARS)

    assert (broken.status_code, broken.json()) == (503, OUT_OF_REACH)
    assert broken.headers["Retry-After"] == "1"
    assert stored == []
    assert again.status_code == 204
    assert service.get("/movies/1").json()["rating_count"] == 1


@needs_postgresql
def test_temporary_error_has_its_own_response_and_stores_nothing(
    service: TestClient, administrator: Connection
) -> None:
    answers = {
        "40P01": (503, BUSY),  # deadlock
        "40001": (503, BUSY),  # serialization failure
        "55P03": (503, BUSY),  # lock timeout
        "57014": (503, OUT_OF_REACH),  # statement timeout
        "53200": (503, OUT_OF_REACH),  # out of memory
        "25006": (503, OUT_OF_REACH),  # read-only
        "42703": (503, NO_SCHEMA),  # an undefined column
        "53100": (507, FULL),  # disk full
    }

    for count, (sqlstate, (status, body)) in enumerate(answers.items()):
        with fault(administrator, f"RAISE SQLSTATE '{sqlstate}'"):
            refused = service.post("/ratings", json=FIVE_STARS)
            read = service.get("/movies/1")
        again = service.post("/ratings", json=FIVE_STARS | {"user_id": None})

        assert (sqlstate, refused.status_code, refused.json()) == (sqlstate, status, body)
        assert refused.headers.get("Retry-After") == ("1" if status == 503 else None)
        assert (read.status_code, read.json()["rating_count"]) == (200, count)
        assert again.status_code == 204


@needs_postgresql
def test_unreachable_server_is_503_until_it_is_back(
    service: TestClient, administrator: Connection
) -> None:
    engine = application(service).state.service.database.engine
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        closed_port = unused.getsockname()[1]

    def elsewhere(_dialect: object, _entry: object, _args: object, kwargs: dict[str, Any]) -> None:
        kwargs["port"] = closed_port

    event.listen(engine, "do_connect", elsewhere)
    end_backends(administrator)
    failures = [
        service.get("/movies"),
        service.get("/movies/1"),
        service.post("/movies", json={"title": "Alien", "year": 1979}),
        service.post("/ratings", json=FIVE_STARS),
        service.get("/ready"),
    ]
    health = service.get("/health")
    event.remove(engine, "do_connect", elsewhere)
    back = [
        service.get("/ready"),
        service.get("/movies"),
        service.post("/ratings", json=FIVE_STARS),
    ]

    assert [(failure.status_code, failure.json()) for failure in failures] == [
        (503, OUT_OF_REACH)
    ] * len(failures)
    assert {failure.headers["Retry-After"] for failure in failures} == {"1"}
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert [response.status_code for response in back] == [200, 200, 204]


@needs_postgresql
def test_connections_to_a_read_only_server_leave_the_pool(
    service: TestClient,
) -> None:
    engine = application(service).state.service.database.engine
    with ExitStack() as connections:
        for _ in range(10):
            connection = connections.enter_context(engine.connect())
            # Applies to the whole session, as after a demotion.
            connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            connection.commit()

    ratings = [service.post("/ratings", json=FIVE_STARS) for _ in range(10)]

    assert [rating.status_code for rating in ratings] == [503, *[204] * 9]
    assert ratings[0].headers["Retry-After"] == "1"


@needs_postgresql
def test_concurrent_changes_of_the_same_movies_neither_deadlock_nor_miscount(
    service: TestClient,
) -> None:
    # The newest is last. Some are deleted before they are rated.
    movie_ids = [1]
    # 503: the title was taken twice, each time by a movie that was removed at once.
    added = {201, 409, 503}
    allowed = {"add": added, "remove": {204, 404}, "rate": {204, 404}, "withdraw": {204, 404}}

    def change(seed: int) -> list[str]:
        choices = random.Random(seed)  # noqa: S311 - a repeatable choice, no secret
        unforeseen = []
        for _ in range(60):
            action = choices.choices(["add", "remove", "rate", "withdraw"], [3, 2, 12, 4])[0]
            movie_id, user_id = choices.choice(movie_ids[-3:]), choices.randint(1, 3)
            match action:
                case "add":
                    title = f"Movie {choices.randint(1, 4)}"
                    response = service.post("/movies", json={"title": title, "year": 2000})
                    if response.status_code == 201:
                        movie_ids.append(response.json()["id"])
                case "remove":
                    response = service.delete(f"/movies/{movie_id}")
                case "rate":
                    user = choices.choice([None, user_id])
                    rating = {"movie_id": movie_id, "user_id": user, "score": choices.randint(1, 5)}
                    response = service.post("/ratings", json=rating)
                case _:
                    response = service.delete(f"/movies/{movie_id}/ratings/{user_id}")
            if response.status_code not in allowed[action]:
                unforeseen.append(f"{action}: {response.status_code} {response.text}")
        return unforeseen

    with ThreadPoolExecutor(12) as pool:
        unforeseen = [line for lines in pool.map(change, range(12)) for line in lines]

    with Session(application(service).state.service.database.engine) as session:
        wrong = list(data_problems(session))
    assert unforeseen == []
    assert wrong == []
    assert len(movie_ids) > 10


@pytest.fixture
def reader_url(postgres_url: str, administrator: Connection) -> Iterator[str]:
    """Yield the URL of a role that may read all tables and write none."""
    name = f"reader_{uuid4().hex}"
    for statement in (
        f"CREATE ROLE {name} LOGIN PASSWORD 'reader'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}",
    ):
        administrator.exec_driver_sql(statement)
    url = make_url(postgres_url).set(username=name, password="reader")  # noqa: S106 - a test's own
    yield url.render_as_string(hide_password=False)
    administrator.exec_driver_sql(f"DROP OWNED BY {name}")
    administrator.exec_driver_sql(f"DROP ROLE {name}")


@needs_postgresql
@pytest.mark.usefixtures("service")
def test_role_without_write_permission_gets_503_for_writes_and_ready_while_reads_continue(
    reader_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(database_url=reader_url, auto_setup=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        read = client.get("/movies/1")
        refused = [
            client.get("/ready"),
            client.post("/movies", json={"title": "Alien", "year": 1979}),
            client.patch("/movies/1", json={"year": 1996}),
            client.delete("/movies/1"),
            client.post("/ratings", json=FIVE_STARS),
            client.post("/ratings/batch", json=[FIVE_STARS]),
        ]

    assert read.status_code == 200
    assert {(response.status_code, response.text) for response in refused} == {
        (503, json.dumps(NO_PERMISSION, separators=(",", ":")))
    }
    assert [record for record in caplog.records if record.exc_info] == []


@needs_postgresql
@pytest.mark.usefixtures("service")
def test_role_that_may_not_create_temporary_tables_serves_and_is_ready(
    reader_url: str, administrator: Connection
) -> None:
    url = make_url(reader_url)
    administrator.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {url.username}")
    administrator.exec_driver_sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {url.username}")
    administrator.exec_driver_sql(f'REVOKE TEMPORARY ON DATABASE "{url.database}" FROM PUBLIC')
    app = create_app(Settings(database_url=reader_url, auto_setup=False))

    with TestClient(app) as client:
        ready = client.get("/ready")
        created = client.post("/movies", json={"title": "Alien", "year": 1979})

    administrator.exec_driver_sql(f'GRANT TEMPORARY ON DATABASE "{url.database}" TO PUBLIC')
    assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
    assert created.status_code == 201


@needs_postgresql
def test_sequences_behind_the_ids_are_503_until_the_printed_fix_is_run(
    service: TestClient, administrator: Connection
) -> None:
    service.post("/ratings", json=FIVE_STARS | {"user_id": 2})
    # As after copying rows with their ids.
    for sequence in ("movie_id_seq", "rating_id_seq"):
        administrator.exec_driver_sql(f"SELECT setval('{sequence}', 1, false)")
    alien = {"title": "Alien", "year": 1979}
    engine = application(service).state.service.database.engine

    refused = [service.post("/movies", json=alien), service.post("/ratings", json=FIVE_STARS)]
    for sequence in ("movie_id_seq", "rating_id_seq"):
        administrator.exec_driver_sql(f"SELECT setval('{sequence}', 1, false)")
    with Session(engine) as session:
        found = [*problems(session)]
    for problem in found:
        administrator.exec_driver_sql(problem.partition("Run in psql: ")[2])
    with Session(engine) as session:
        left = [*problems(session)]
    stored = [service.post("/movies", json=alien), service.post("/ratings", json=FIVE_STARS)]

    assert [(response.status_code, response.json()) for response in refused] == [
        (503, SEQUENCE_BEHIND)
    ] * 2
    assert found == [
        BEHIND.replace("TABLE", "movie"),
        BEHIND.replace("TABLE", "rating"),
    ]
    assert left == []
    assert [response.status_code for response in stored] == [201, 204]


@needs_postgresql
@pytest.mark.parametrize("query", ["", "?options=-c%20application_name%3Dtheirs"])
def test_lock_timeout_is_set_despite_options_in_the_url(postgres_url: str, query: str) -> None:
    engine = create_db_engine(postgres_url + query, busy_timeout=0.2)
    with engine.connect() as connection:
        limit = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
    engine.dispose()

    assert limit == "200ms"


@needs_postgresql
@pytest.mark.slow
def test_rename_that_deadlocks_is_retried_once(
    service: TestClient, administrator: Connection
) -> None:
    service.post("/movies", json={"title": "Ronin", "year": 1998})
    # Makes PostgreSQL roll back the service's transaction instead of this one.
    administrator.exec_driver_sql("SET deadlock_timeout = '1h'")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    waiting += " AND datname = current_database()"

    with ThreadPoolExecutor(1) as pool:
        administrator.exec_driver_sql("BEGIN")
        administrator.exec_driver_sql("UPDATE movie SET title = 'Ronin (1998)' WHERE id = 2")
        renamed = pool.submit(service.patch, "/movies/1", json={"title": "Ronin"})
        wait_until(
            lambda: administrator.exec_driver_sql(waiting).scalar_one() > 0,
            lambda: "the rename does not wait for a lock",
        )
        administrator.exec_driver_sql("UPDATE movie SET title = 'Heat (1995)' WHERE id = 1")
        administrator.exec_driver_sql("COMMIT")
        response = renamed.result()

    assert (response.status_code, response.json()["title"]) == (200, "Ronin")
    titles = [movie["title"] for movie in service.get("/movies?sort=id").json()]
    assert titles == ["Ronin", "Ronin (1998)"]


@needs_postgresql
def test_migration_blocked_by_another_process_says_so(
    postgres_url: str, administrator: Connection
) -> None:
    administrator.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")

    with pytest.raises(SetupError, match=r"^Another process keeps postgresql\S+ locked\.\n"):
        migrate(postgres_url, lock_timeout=0.1)

    administrator.exec_driver_sql(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})")
    migrate(postgres_url)


@needs_postgresql
def test_database_without_utf_8_is_refused() -> None:
    latin1 = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    with (
        new_postgresql(latin1) as url,
        pytest.raises(SetupError, match=r"^The database's encoding is LATIN1, .*\nCreate another"),
    ):
        migrate(url)

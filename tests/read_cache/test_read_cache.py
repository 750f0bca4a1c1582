"""The read cache: a repeated read costs no query and is never stale."""

import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import httpx2
import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlmodel import Session

import app.db
from app.config import Settings
from app.db import Database, create_db_engine
from app.dependencies import RepositoryDep, SessionDep, get_repository, get_session, service_of
from app.limits import Limits
from app.main import app as app_of_main
from app.main import create_app
from app.read_cache.middleware import ENTRY_OVERHEAD, ReadCacheMiddleware
from app.read_models import GenreRead
from app.repository import MovieRepository
from app.service import Service
from tests.databases import needs_postgresql
from tests.server import DEADLINE_SECONDS, running_server

USER = 7
READS = [
    "/movies",
    "/movies?genre=sci-fi&sort=-year&limit=2&offset=1",
    "/movies/1",
    "/movies/top?ranking=weighted",
    "/ratings",
    "/ratings?movie_id=1",
]
ROUNDS = 30


class Write(NamedTuple):
    """A request that changes the response to at least one of READS."""

    method: str
    path: str
    body: dict[str, object] | None = None


WRITES = [
    Write("POST", "/movies", {"title": "Stalker", "year": 1979, "genre": "Sci-Fi"}),
    Write("PUT", "/movies/1", {"title": "Zodiac (2007)", "year": 2008}),
    Write("PATCH", "/movies/1", {"genre": "Drama"}),
    Write("POST", "/ratings", {"movie_id": 1, "user_id": USER, "score": 5}),
    Write("POST", "/ratings", {"movie_id": 1, "score": 5}),
    Write("DELETE", f"/movies/1/ratings/{USER}"),
    Write("DELETE", "/movies/1"),
]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return SQLite, the only engine with this cache."""
    return sqlite_url


@pytest.fixture
def _catalogue(repository: MovieRepository) -> None:
    """Store movies with ratings."""
    for title, year, genre in (
        ("Zodiac", 2007, "Crime"),
        ("Solaris", 1972, "Sci-Fi"),
        ("Alien", 1979, "Sci-Fi"),
        ("Metropolis", 1927, "Sci-Fi"),
    ):
        repository.create(title=title, year=year, genre=genre)
    repository.add_rating(1, 2, USER)
    repository.add_rating(1, 4)
    repository.add_rating(2, 5)


@pytest.fixture
def uncached(settings: Settings) -> Iterator[TestClient]:
    """Yield a client of the service without the cache, on the same database."""
    app = create_app(settings.model_copy(update={"read_cache": False}))
    with TestClient(app) as client:
        yield client


def kept(response: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return a response without its trace id."""
    headers = {name: value for name, value in response.headers.items() if name != "x-trace-id"}
    return response.status_code, response.content, headers


@contextmanager
def statements_of(app: FastAPI) -> Iterator[list[str]]:
    """Yield a list that collects the application's statements."""
    statements: list[str] = []

    def note(_connection: Connection, _cursor: DBAPICursor, statement: str, *_rest: object) -> None:
        statements.append(statement)

    engine = service_of(app).database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def database_file(url: str) -> Path:
    """Return the file that a SQLite URL names."""
    return Path(url.removeprefix("sqlite:///"))


def rename_first_movie(url: str, title: str) -> None:
    """Commit a change over a connection outside the service."""
    with closing(sqlite3.connect(database_file(url))) as connection, connection:
        connection.execute("UPDATE movie SET title = ? WHERE id = 1", (title,))


def has_cache(app: FastAPI) -> bool:
    """Return whether an application has the cache."""
    layers: list[object] = [layer.cls for layer in app.user_middleware]
    return ReadCacheMiddleware in layers


def title_of_first_movie(client: TestClient) -> str:
    """Return the title of movie 1 that the service responds with."""
    title: str = client.get("/movies/1").json()["title"]
    return title


# Cached reads


@pytest.mark.usefixtures("_catalogue")
@pytest.mark.parametrize("root_path", ["", "/api"])
def test_repeated_read_is_answered_from_memory(
    app: FastAPI, uncached: TestClient, root_path: str
) -> None:
    with TestClient(app, root_path=root_path) as client, statements_of(app) as statements:
        first = [client.get(f"{root_path}{read}") for read in READS]
        queries = len(statements)
        again = [client.get(f"{root_path}{read}") for read in READS]

    assert len(statements) == queries >= len(READS)
    assert {response.status_code for response in first} == {200}
    assert [kept(response) for response in again] == [kept(response) for response in first]
    if not root_path:
        assert [kept(response) for response in first] == [kept(uncached.get(r)) for r in READS]


@pytest.mark.usefixtures("_catalogue")
def test_different_queries_have_different_responses(client: TestClient) -> None:
    paths = ["/movies?limit=1", "/movies?limit=2", "/movies?limit=1&offset=1", "/movies/1"]

    rounds = [[client.get(path).json() for path in paths] for _ in range(2)]

    assert rounds[0] == rounds[1]
    assert len({str(answer) for answer in rounds[0]}) == len(paths)


def test_error_is_not_cached(app: FastAPI, client: TestClient) -> None:
    with statements_of(app) as statements:
        first = client.get("/movies/1")
        asked_for_the_first = len(statements)
        second = client.get("/movies/1", headers={"If-None-Match": "*"})

    assert first.status_code == second.status_code == 404
    assert second.json() == {"detail": "Movie not found"}
    assert len(statements) == 2 * asked_for_the_first > 0
    assert "etag" not in second.headers


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs"])
def test_other_paths_are_not_cached(client: TestClient, path: str) -> None:
    client.get(path)

    response = client.get(path, headers={"If-None-Match": "*"})

    assert response.status_code == 200
    assert "etag" not in response.headers
    assert "cache-control" not in response.headers


def test_readiness_is_a_query_each_time(app: FastAPI, client: TestClient) -> None:
    client.get("/ready")

    with statements_of(app) as statements:
        client.get("/ready")

    assert statements


@pytest.mark.usefixtures("_catalogue")
def test_links_have_the_root_path_of_the_request(app: FastAPI) -> None:
    with TestClient(app) as client:
        plain = client.get("/movies?limit=1").headers["link"]
    with TestClient(app, root_path="/api") as client:
        behind = client.get("/api/movies?limit=1").headers["link"]

    assert plain.startswith("</movies?")
    assert behind == plain.replace("</movies?", "</api/movies?")


def queries_each_time(settings: Settings) -> bool:
    """Return whether each read is a query. A repeated one is a 304 without the cache too."""
    app = create_app(settings)
    with TestClient(app) as client, statements_of(app) as statements:
        client.get("/movies")
        queries = len(statements)
        response = client.get("/movies", headers={"If-None-Match": "*"})

    assert response.status_code == 304
    return len(statements) == 2 * queries > 0


def test_cache_is_off_without_its_setting_and_on_postgresql(
    monkeypatch: pytest.MonkeyPatch, app: FastAPI, settings: Settings
) -> None:
    assert has_cache(app)
    postgresql = Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    assert not has_cache(create_app(postgresql))

    monkeypatch.setenv("MOVIE_READ_CACHE", "false")

    assert not has_cache(create_app(Settings(database_url=settings.database_url)))
    assert queries_each_time(settings.model_copy(update={"read_cache": False}))


@needs_postgresql
def test_on_postgresql_each_read_is_a_query(postgres_url: str) -> None:
    assert queries_each_time(Settings(database_url=postgres_url, auto_setup=False))


# Writes


@pytest.mark.usefixtures("_catalogue")
def test_next_read_sees_a_write_through_the_service(
    client: TestClient, uncached: TestClient
) -> None:
    for write in WRITES:
        before = [client.get(read).content for read in READS]

        response = client.request(write.method, write.path, json=write.body)

        assert response.is_success, write
        after = [client.get(read).content for read in READS]
        assert after == [uncached.get(read).content for read in READS], write
        assert after != before, write


@pytest.mark.usefixtures("_catalogue")
def test_next_read_sees_a_write_over_another_connection(
    client: TestClient, database_url: str
) -> None:
    for number in range(20):
        client.get("/movies/1")
        rename_first_movie(database_url, f"Title {number}")

        assert title_of_first_movie(client) == f"Title {number}"


@pytest.mark.usefixtures("_catalogue")
def test_uncommitted_write_is_not_seen_and_costs_no_query(
    app: FastAPI, client: TestClient, database_url: str
) -> None:
    client.get("/movies/1")

    with closing(sqlite3.connect(database_file(database_url))) as connection:
        connection.execute("UPDATE movie SET title = 'Never' WHERE id = 1")
        with statements_of(app) as statements:
            during = title_of_first_movie(client)
        connection.rollback()

    assert (during, title_of_first_movie(client)) == ("Zodiac", "Zodiac")
    assert statements == []


@pytest.mark.usefixtures("_catalogue")
@pytest.mark.parametrize("meanwhile", [None, "/movies", "/movies/1"])
def test_read_that_began_before_a_write_is_not_cached(
    settings: Settings, database_url: str, meanwhile: str | None
) -> None:
    has_read, may_answer = threading.Event(), threading.Event()
    # Run reads in worker threads: one that waits on the event loop blocks all others.
    app = create_app(settings, Limits(read_deadline=-1.0, read_steps=1))

    def hold(_connection: Connection, _cursor: DBAPICursor, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT") and not has_read.is_set():
            has_read.set()
            may_answer.wait(DEADLINE_SECONDS)

    with TestClient(app) as client, ThreadPoolExecutor(1) as pool:
        event.listen(service_of(app).database.engine, "after_cursor_execute", hold)
        slow = pool.submit(title_of_first_movie, client)
        assert has_read.wait(DEADLINE_SECONDS)
        rename_first_movie(database_url, "Renamed")
        if meanwhile is not None:
            assert '"Renamed"' in client.get(meanwhile).text
        may_answer.set()
        before, after = slow.result(), title_of_first_movie(client)

    assert (before, after) == ("Zodiac", "Renamed")


@pytest.mark.usefixtures("_catalogue")
def test_restarted_service_has_an_empty_cache(app: FastAPI, database_url: str) -> None:
    # Each start opens a connection, and a connection counts the commits since it was opened.
    with TestClient(app) as client:
        client.get("/movies/1")
    rename_first_movie(database_url, "Renamed")

    with TestClient(app) as client:
        assert title_of_first_movie(client) == "Renamed"


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.usefixtures("_catalogue")
def test_read_in_one_process_sees_a_write_acknowledged_by_another(
    tmp_path: Path, database_url: str
) -> None:
    def count_seen(client: httpx.Client) -> int:
        count: int = client.get("/movies/1").json()["rating_count"]
        return count

    seen_while_writing = 0
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                running_server(tmp_path, database_url=database_url, auto_setup="false")
            )
            for _ in range(2)
        ]
        writers, readers = (
            [stack.enter_context(server.client()) for server in servers] for _ in range(2)
        )
        thread = stack.enter_context(ThreadPoolExecutor(1))
        count = first_count = count_seen(readers[0])
        for number in range(1, ROUNDS + 1):
            writer, reader = writers[number % 2], readers[1 - number % 2]
            written = thread.submit(writer.post, "/ratings", json={"movie_id": 1, "score": 3})
            # No process returns an older count than another one has.
            while not written.done():
                for client in readers:
                    previous, count = count, count_seen(client)
                    assert previous <= count <= first_count + number
                    seen_while_writing += 1

            assert written.result().status_code == 204
            assert count_seen(reader) == first_count + number
            total = reader.get("/ratings?movie_id=1").headers["X-Total-Count"]
            assert int(total) == first_count + number

    assert seen_while_writing > ROUNDS


# Headers


def test_each_origin_gets_its_own_permission(settings: Settings) -> None:
    def allowed(client: TestClient, origin: str | None, **headers: str) -> str | None:
        if origin is not None:
            headers["Origin"] = origin
        answer = client.get("/movies", headers=headers)
        assert answer.headers["Vary"] == "Accept-Encoding, Origin"
        return answer.headers.get("Access-Control-Allow-Origin")

    origins = {
        "http://localhost:3000": "http://localhost:3000",
        "http://127.0.0.1:8501": "http://127.0.0.1:8501",
        "https://elsewhere.example": None,
        None: None,
    }
    for first in ("http://localhost:3000", "https://elsewhere.example", None):
        with TestClient(create_app(settings)) as client:
            allowed(client, first)

            assert {origin: allowed(client, origin) for origin in origins} == origins
            condition = {"If-None-Match": "*"}
            assert allowed(client, "http://localhost:3000", **condition) == "http://localhost:3000"


@pytest.mark.usefixtures("_catalogue")
def test_if_none_match_does_not_affect_the_cached_response(client: TestClient) -> None:
    unchanged = client.get("/movies", headers={"If-None-Match": "*"})
    full = client.get("/movies")

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert full.status_code == 200
    assert len(full.json()) == 4
    assert unchanged.headers["ETag"] == full.headers["ETag"]


@pytest.mark.usefixtures("_catalogue")
def test_stale_etag_gets_the_new_response(client: TestClient, database_url: str) -> None:
    before = client.get("/movies/1")
    rename_first_movie(database_url, "Renamed")

    after = client.get("/movies/1", headers={"If-None-Match": before.headers["ETag"]})

    assert after.status_code == 200
    assert after.json() == before.json() | {"title": "Renamed"}


# Dependency overrides


class EmptyRepository(MovieRepository):
    """A repository without a database."""

    def __init__(self) -> None:
        """Take no session."""

    def top(self, *_: object, **__: object) -> list[Any]:
        """Return no movie."""
        return []


class ReversedRepository(MovieRepository):
    """A repository on the service's session, which reverses the ranking."""

    def top(self, *arguments: Any, **options: Any) -> list[Any]:  # noqa: ANN401 - those of the original
        """Return the best movies, best last."""
        return super().top(*arguments, **options)[::-1]


async def reversed_repository(session: SessionDep) -> MovieRepository:
    """Return a repository on the session that the service injects."""
    return ReversedRepository(session)


@pytest.fixture
def other_engine(sqlite_template: Path, tmp_path: Path) -> Iterator[Engine]:
    """Yield an engine on another database, with one movie."""
    engine = create_db_engine(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'other.db')}")
    with Session(engine) as session:
        MovieRepository(session).create(title="Other", year=2000)
    yield engine
    engine.dispose()


def url_of(engine: Engine) -> str:
    """Return the URL of an engine's database."""
    return engine.url.render_as_string()


@pytest.mark.usefixtures("_catalogue")
@pytest.mark.parametrize("override", [EmptyRepository, reversed_repository])
@pytest.mark.parametrize("is_warm", [True, False])
def test_overridden_repository_does_not_share_the_cache(
    app: FastAPI, client: TestClient, override: Callable[..., MovieRepository], *, is_warm: bool
) -> None:
    def best() -> list[str]:
        return [movie["title"] for movie in client.get("/movies/top").json()]

    real = ["Solaris", "Zodiac", "Alien", "Metropolis"]
    if is_warm:
        assert best() == real

    app.dependency_overrides[get_repository] = override
    overridden = [best() for _ in range(2)]
    app.dependency_overrides.clear()

    assert overridden == [[] if override is EmptyRepository else real[::-1]] * 2
    assert best() == real


@pytest.mark.usefixtures("_catalogue")
def test_response_of_an_overridden_repository_is_not_cached(
    app: FastAPI, client: TestClient
) -> None:
    scale = [1, 2]

    async def scaled(session: SessionDep) -> MovieRepository:
        class Scaled(MovieRepository):
            def genres(self) -> list[GenreRead]:
                return [GenreRead(row.genre, scale[0]) for row in super().genres()]

        return Scaled(session)

    app.dependency_overrides[get_repository] = scaled
    counts = []
    while scale:
        counts.append({genre["movie_count"] for genre in client.get("/genres").json()})
        del scale[0]

    assert counts == [{1}, {2}]


@pytest.mark.usefixtures("_catalogue")
def test_overridden_session_does_not_share_the_cache(
    app: FastAPI, client: TestClient, other_engine: Engine
) -> None:
    def other_session() -> Iterator[Session]:
        with Session(other_engine) as session:
            yield session

    def titles() -> list[str]:
        seen = [title_of_first_movie(client)]
        app.dependency_overrides[get_session] = other_session
        seen.append(title_of_first_movie(client))
        app.dependency_overrides.clear()
        return seen

    first = titles()
    # The cache watches the service's database only, so it cannot notice this commit.
    rename_first_movie(url_of(other_engine), "Renamed")
    second = [*titles(), title_of_first_movie(client)]

    assert (first, second) == (["Zodiac", "Other"], ["Zodiac", "Renamed", "Zodiac"])


@pytest.mark.usefixtures("_catalogue")
def test_two_overrides_share_no_response(app: FastAPI, client: TestClient) -> None:
    # Each has the service's own session, so its response is cached.
    def repository_with(limit: int) -> Callable[[Session], Awaitable[MovieRepository]]:
        class ShortRepository(MovieRepository):
            def top(self, *_: object, **__: object) -> list[Any]:
                return super().top(limit)

        async def short_repository(session: SessionDep) -> MovieRepository:
            return ShortRepository(session)

        return short_repository

    lengths = []
    for limit in (1, 2, 1):
        app.dependency_overrides[get_repository] = repository_with(limit)
        lengths.append(len(client.get("/movies/top").json()))

    assert lengths == [1, 2, 1]


@pytest.mark.usefixtures("_catalogue")
def test_cache_works_with_an_unrelated_override(app: FastAPI, client: TestClient) -> None:
    app.dependency_overrides[url_of] = dict  # no route depends on this function

    with statements_of(app) as statements:
        first = client.get("/movies/1")
        queries = len(statements)
        second = client.get("/movies/1")

    assert kept(first) == kept(second)
    assert len(statements) == queries > 0


@pytest.mark.usefixtures("_catalogue")
def test_engine_replaced_while_the_service_runs_gets_no_cached_response(
    monkeypatch: pytest.MonkeyPatch, other_engine: Engine
) -> None:
    with TestClient(app_of_main) as client:
        before = client.get("/movies").json()
        monkeypatch.setattr(app.db, "engine", other_engine)
        titles = [[movie["title"] for movie in client.get("/movies").json()]]
        rename_first_movie(url_of(other_engine), "Renamed")
        titles += [[movie["title"] for movie in client.get("/movies").json()]]
        monkeypatch.undo()
        after = client.get("/movies").json()

    assert titles == [["Other"], ["Renamed"]]
    assert after == before


# The middleware alone: its size, and its behaviour without a database file


class Answers:
    """A small application behind the cache, which counts the requests that reach it."""

    def __init__(self, database_url: str, max_bytes: int, *, has_file: bool = True) -> None:
        settings, limits = Settings(database_url=database_url), Limits()
        database = Database(settings, limits)
        self.asked: list[str] = []

        @asynccontextmanager
        async def opened(_app: FastAPI) -> AsyncIterator[None]:
            async with database.open():
                yield

        async def refuse(*_: object) -> None:
            raise NotImplementedError

        self.app = FastAPI(lifespan=opened if has_file else None)
        service = self.app.state.service = Service(self.app, settings, limits, database, refuse)
        self.app.add_middleware(
            ReadCacheMiddleware, service=service, prefixes=("/answers",), max_bytes=max_bytes
        )

        @self.app.get("/answers/{name}/{size}")
        @self.app.get("/answers.csv/{name}/{size}")
        async def answer(
            name: str, size: int, _repository: RepositoryDep, header_size: int = 0
        ) -> Response:
            self.asked.append(name)
            headers = {"X-Filling": "x" * header_size, "ETag": f'"{name}"'}
            return Response(b"x" * size, headers=headers)


@pytest.fixture
def answers(sqlite_url: str) -> Answers:
    """Return a cache for three responses of 1,000 bytes."""
    return Answers(sqlite_url, max_bytes=3 * (1000 + ENTRY_OVERHEAD) + 500)


@pytest.mark.parametrize(
    ("requests", "kept", "dropped"),
    [
        (("a/1000", "b/1000", "c/1000", "a/1000", "d/1000"), ("a", "c", "d"), "b"),
        (("a/1000", "b/1000", "c/1000", "large/4000"), ("large", "c"), "a"),
    ],
    ids=["least recently used first", "as many as make room"],
)
def test_cache_drops_responses_beyond_its_size(
    answers: Answers, requests: tuple[str, ...], kept: tuple[str, ...], dropped: str
) -> None:
    sizes = dict(request.split("/") for request in requests)
    with TestClient(answers.app) as client:
        for request in requests:
            client.get(f"/answers/{request}")
        answers.asked.clear()

        for name in (*kept, dropped):
            client.get(f"/answers/{name}/{sizes[name]}")

    assert answers.asked == [dropped]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("/answers/a/20000", {}),
        (f"/answers/a/10?{'x' * 20000}", {}),
        ("/answers/a/10", {"Origin": f"https://{'x' * 20000}"}),
        ("/answers/a/10?header_size=20000", {}),
    ],
    ids=["body", "query", "origin", "header"],
)
def test_body_key_and_headers_count_towards_the_size_limit(
    answers: Answers, url: str, headers: dict[str, str]
) -> None:
    with TestClient(answers.app) as client:
        responses = [client.get(url, headers=headers) for _ in range(2)]

    assert responses[0].content == responses[1].content
    assert answers.asked == ["a", "a"]


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_path_that_only_starts_like_a_cached_one_is_not_cached(
    answers: Answers, root_path: str
) -> None:
    with TestClient(answers.app, root_path=root_path) as client:
        for _ in range(2):
            client.get(f"{root_path}/answers.csv/a/10")
            client.get(f"{root_path}/answers/b/10")

    assert answers.asked == ["a", "b", "a"]


def test_without_an_open_database_file_nothing_is_cached(sqlite_url: str) -> None:
    answers = Answers(sqlite_url, max_bytes=10_000, has_file=False)

    with TestClient(answers.app) as client:
        responses = [client.get("/answers/a/10") for _ in range(2)]

    assert [response.status_code for response in responses] == [200, 200]
    assert answers.asked == ["a", "a"]

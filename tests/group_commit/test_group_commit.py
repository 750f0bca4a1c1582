"""Ratings that wait for a commit share the next one, and affect only their own request."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import TypeVar

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlmodel import Session

from app.config import Settings
from app.db import Database, create_db_engine
from app.dependencies import get_repository, service_of
from app.group_commit.waiting import GroupCommit
from app.limits import Limits
from app.logs import EventRecord
from app.main import create_app
from app.observer import Observer
from app.read_models import NewRating, RatingRead
from app.repository import MovieRepository
from tests.databases import locked
from tests.helpers import HEAT, RONIN, problems_of, rating_rows, store
from tests.server import DEADLINE_SECONDS, wait_until

T = TypeVar("T")
Answers = list[Future[httpx2.Response]]

UNKNOWN_MOVIE = {"detail": "Movie not found"}
BUSY = {"detail": "The database is busy, try again in a moment"}
FULL = {"detail": "The database's disk is full, nothing was stored"}


class Commits:
    """Counts the transactions that store ratings."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.count += statement.startswith("INSERT INTO rating")


class Waiting(Observer):
    """Counts the ratings that wait for the commit after the one that runs."""

    def __init__(self) -> None:
        # The threads of the service append to it.
        self._changes: list[int] = []

    def waiting_writers_changed(self, change: int) -> None:
        """Note a change."""
        self._changes.append(change)

    def wait_for(self, count: int) -> None:
        """Return when one rating is being stored and this number waits."""

        def is_so() -> bool:
            arrived = sum(change for change in self._changes if change > 0)
            return (arrived, sum(self._changes)) == (count + 1, count)

        wait_until(is_so, lambda: f"{self._changes} instead of {count} waiting")


class Group:
    """Sends ratings in order that wait while another transaction locks the database."""

    def __init__(self, app: FastAPI, client: TestClient) -> None:
        self._service = service_of(app)
        self._client = client
        self._commits = Commits(self._service.database.engine)
        self._waiting = self._service.database.observer = Waiting()

    @property
    def commits(self) -> int:
        """Return the number of transactions that have stored ratings."""
        return self._commits.count

    @contextmanager
    def waiting(self, *ratings: dict[str, int]) -> Iterator[Answers]:
        """Yield the future responses, while all but the first rating wait for the next commit."""
        with ThreadPoolExecutor(len(ratings)) as pool:
            answers: Answers = []
            with locked(self._service.settings.database_url):
                for number, rating in enumerate(ratings):
                    headers = {"X-Trace-Id": f"rating-{number}"}
                    answers.append(
                        pool.submit(self._client.post, "/ratings", json=rating, headers=headers)
                    )
                    self._waiting.wait_for(number)
                yield answers

    def send(self, *ratings: dict[str, int]) -> list[httpx2.Response]:
        """Return the responses to ratings of which all but the first wait for the next commit."""
        with self.waiting(*ratings) as answers:
            pass
        return [answer.result() for answer in answers]


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings with which a rating waits as long as the test needs."""
    return Settings(database_url=database_url, auto_setup=False, busy_timeout=DEADLINE_SECONDS)


@pytest.fixture
def group(app: FastAPI, client: TestClient) -> Group:
    """Ratings on the test's database, which has two movies."""
    store(service_of(app).database.engine, HEAT, RONIN)
    return Group(app, client)


def rating(movie_id: int, user_id: int, score: int = 3) -> dict[str, int]:
    """Return the body of a rating."""
    return {"movie_id": movie_id, "user_id": user_id, "score": score}


def stored_by(engine: Engine) -> list[tuple[int, int, int]]:
    """Return the movie, the user and the score of each rating, by id."""
    return [(row["movie_id"], row["user_id"], row["score"]) for row in rating_rows(engine)]


def test_ratings_that_wait_while_a_commit_runs_share_the_next(group: Group, engine: Engine) -> None:
    ratings = [rating(1 + user_id % 2, user_id) for user_id in range(1, 21)]

    answers = group.send(*ratings)

    assert [answer.status_code for answer in answers] == [204] * 20
    assert {answer.content for answer in answers} == {b""}
    assert group.commits == 2
    assert stored_by(engine) == [(1 + user_id % 2, user_id, 3) for user_id in range(1, 21)]
    assert problems_of(engine) == []


def test_rating_that_finds_no_commit_running_is_stored_at_once(
    group: Group, client: TestClient
) -> None:
    for user_id in (1, 2, 3):
        assert client.post("/ratings", json=rating(1, user_id)).status_code == 204

    assert group.commits == 3


def test_ratings_are_acknowledged_only_when_others_can_read_them(
    group: Group, client: TestClient, engine: Engine
) -> None:
    with group.waiting(*(rating(1, user_id) for user_id in range(1, 6))) as answers:
        answered_too_early = [answer for answer in answers if answer.done()]
    for answer in answers:
        answer.result()

    def rate_and_look(user_id: int) -> bool:
        client.post("/ratings", json=rating(2, user_id))
        return (2, user_id, 3) in stored_by(engine)

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(rate_and_look, range(1, 41)))

    assert answered_too_early == []
    assert seen == [True] * 40


def test_rating_of_an_unknown_movie_is_404_only_for_its_own_request(
    group: Group, engine: Engine
) -> None:
    answers = group.send(*(rating(movie_id, 7) for movie_id in (1, 99, 98, 2, 99)))

    assert [answer.status_code for answer in answers] == [204, 404, 404, 204, 404]
    assert {answer.content for answer in answers if answer.status_code == 204} == {b""}
    assert [a.json() for a in answers if a.status_code == 404] == [UNKNOWN_MOVIE] * 3
    assert stored_by(engine) == [(1, 7, 3), (2, 7, 3)]
    assert problems_of(engine) == []


def test_later_of_two_ratings_of_a_movie_by_one_user_wins(group: Group, engine: Engine) -> None:
    answers = group.send(
        rating(2, 1), rating(1, 7, 5), rating(1, 8, 4), rating(1, 7, 1), rating(2, 1, 2)
    )

    assert {answer.status_code for answer in answers} == {204}
    assert group.commits == 2
    assert stored_by(engine) == [(2, 1, 2), (1, 7, 1), (1, 8, 4)]
    assert problems_of(engine) == []


def test_ratings_that_wait_too_long_for_a_lock_are_503_and_the_service_recovers(
    database_url: str, engine: Engine
) -> None:
    settings = Settings(database_url=database_url, auto_setup=False, busy_timeout=0.2)
    # A slow disk must not fail the ratings that are stored afterwards.
    app = create_app(settings, Limits(rating_timeout=DEADLINE_SECONDS))
    store(engine, HEAT)
    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(8) as pool:

        def rate(user_id: int) -> httpx2.Response:
            return client.post("/ratings", json=rating(1, user_id))

        with locked(database_url):
            refused = list(pool.map(rate, range(1, 17)))
        taken = list(pool.map(rate, range(1, 17)))

    assert [(answer.status_code, answer.json()) for answer in refused] == [(503, BUSY)] * 16
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert [answer.status_code for answer in taken] == [204] * 16
    assert sorted(stored_by(engine)) == [(1, user_id, 3) for user_id in range(1, 17)]
    assert problems_of(engine) == []


@pytest.mark.slow
@pytest.mark.ci
def test_full_disk_is_507_for_all_ratings_of_a_commit(sqlite_url: str) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False, log_level="ERROR"))
    engine = service_of(app).database.engine
    store(engine, HEAT)
    pages = 1  # fewer than there are, so the file cannot grow

    @event.listens_for(engine, "before_cursor_execute")
    def limit(_connection: Connection, cursor: DBAPICursor, *_: object) -> None:
        cursor.execute(f"PRAGMA max_page_count={pages}")

    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(8) as pool:

        def rate(user_id: int) -> httpx2.Response:
            return client.post("/ratings", json=rating(1, user_id))

        answers = list(pool.map(rate, range(1, 401)))
        stored = len(rating_rows(engine))
        problems = problems_of(engine)
        pages = 2**31
        afterwards = rate(1000)

    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {204, 507}
    assert all(answer.json() == FULL for answer in answers if answer.status_code == 507)
    assert stored == statuses[204]
    assert problems == []
    assert afterwards.status_code == 204


def test_each_rating_logs_one_event_with_its_trace_id_after_the_commit(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    def added() -> list[dict[str, object]]:
        logged = [record for record in caplog.records if isinstance(record, EventRecord)]
        return [record.fields for record in logged if record.getMessage() == "rating.added"]

    with group.waiting(rating(1, 1), rating(2, 2), rating(99, 3), rating(1, 4, 5)) as answers:
        logged_too_early = added()
    for answer in answers:
        answer.result()

    assert logged_too_early == []
    assert added() == [
        rating(1, 1) | {"trace_id": "rating-0"},
        rating(2, 2) | {"trace_id": "rating-1"},
        rating(1, 4, 5) | {"trace_id": "rating-3"},
    ]


@pytest.mark.parametrize("leaving", [0, 1, 3])
def test_client_that_disconnects_does_not_undo_the_ratings_of_others(
    app: FastAPI, client: TestClient, engine: Engine, leaving: int
) -> None:
    store(engine, HEAT)
    service = service_of(app)
    waiting = service.database.observer = Waiting()
    portal = client.portal
    assert portal is not None

    async def rate(user_id: int) -> int:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as own:
            return (await own.post("/ratings", json=rating(1, user_id))).status_code

    with locked(service.settings.database_url):
        senders = [portal.start_task_soon(rate, 1)]
        waiting.wait_for(0)
        senders += [portal.start_task_soon(rate, user_id) for user_id in (2, 3, 4)]
        waiting.wait_for(3)
        senders[leaving].cancel()
    others = [sender for number, sender in enumerate(senders) if number != leaving]
    statuses = [sender.result(DEADLINE_SECONDS) for sender in others]

    assert statuses == [204] * 3
    users = {user_id for _, user_id, _ in stored_by(engine)}
    assert users >= {1, 2, 3, 4} - {leaving + 1}
    assert problems_of(engine) == []


# Dependency overrides


class Gate:
    """Holds the first rating until the others wait."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        # The ratings of each repository, which threads append to.
        self.stored: list[tuple[object, int, int, int | None]] = []

    def store(self, repository: object, movie_id: int, score: int, user_id: int | None) -> None:
        """Note a rating."""
        assert self.is_open.wait(DEADLINE_SECONDS)
        self.stored.append((repository, movie_id, score, user_id))


class Fake:
    """A test's repository with the one method that the route needs."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def add_rating(self, movie_id: int, score: int, user_id: int | None = None) -> None:
        """Note a rating."""
        self._gate.store(self, movie_id, score, user_id)


class Subclass(MovieRepository):
    """A test's repository that changes one method."""

    def __init__(self, gate: Gate, session: Session) -> None:
        super().__init__(session)
        self._gate = gate

    def add_rating(self, movie_id: int, score: int, user_id: int | None = None) -> RatingRead:
        """Note a rating and store it."""
        self._gate.store(self, movie_id, score, user_id)
        return super().add_rating(movie_id, score, user_id)


@pytest.fixture
def other_engine(sqlite_template: Path, tmp_path: Path) -> Iterator[Engine]:
    """Yield an engine on another database, with one movie."""
    engine = create_db_engine(f"sqlite:///{copy(sqlite_template, tmp_path / 'other.db')}")
    store(engine, HEAT)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("kind", [Fake, Subclass])
def test_rating_in_an_overridden_repository_is_stored_alone_by_that_repository(
    sqlite_url: str, other_engine: Engine, kind: type[Fake | Subclass]
) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False))
    service, gate = service_of(app), Gate()
    waiting = service.database.observer = Waiting()

    async def override() -> Fake | Subclass:
        return Fake(gate) if kind is Fake else Subclass(gate, Session(other_engine))

    app.dependency_overrides[get_repository] = override
    with TestClient(app) as client, ThreadPoolExecutor(4) as pool:
        answers: Answers = []
        for user_id in range(1, 5):
            answers.append(pool.submit(client.post, "/ratings", json=rating(1, user_id)))
            waiting.wait_for(user_id - 1)
        gate.is_open.set()
        statuses = [answer.result().status_code for answer in answers]
        in_service = stored_by(service.database.engine)

    assert statuses == [204] * 4
    assert [noted[1:] for noted in gate.stored] == [(1, 3, user_id) for user_id in range(1, 5)]
    assert len({id(repository) for repository, *_ in gate.stored}) == 4
    assert in_service == []
    if kind is Subclass:
        assert stored_by(other_engine) == [(1, user_id, 3) for user_id in range(1, 5)]


def test_repositories_on_two_engines_share_no_commit(
    app: FastAPI, group: Group, engine: Engine, other_engine: Engine
) -> None:
    other_commits, own_engine = Commits(other_engine), service_of(app).database.engine
    engines = iter([own_engine, own_engine, other_engine, other_engine, own_engine])

    async def override() -> MovieRepository:
        return MovieRepository(Session(next(engines)))

    app.dependency_overrides[get_repository] = override

    answers = group.send(*(rating(1, user_id) for user_id in range(1, 6)))

    assert [answer.status_code for answer in answers] == [204] * 5
    # The first, the second, the third with the fourth, the last.
    assert (group.commits, other_commits.count) == (3, 1)
    assert stored_by(engine) == [(1, user_id, 3) for user_id in (1, 2, 5)]
    assert stored_by(other_engine) == [(1, user_id, 3) for user_id in (3, 4)]


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time a test sets."""

    now = 0.0

    def time(self) -> float:
        """Return the time that was set."""
        return self.now


class SlowDatabase(Database):
    """A database whose commits end when a test says so."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, Limits())
        self.is_committing = asyncio.Event()
        self.may_commit = asyncio.Event()

    async def write(self, function: Callable[[], T], *, requests: int = 1) -> T:
        """Return the result of a function, which runs on the event loop."""
        assert requests == 0
        result = function()
        self.is_committing.set()
        await self.may_commit.wait()
        return result


@pytest.mark.parametrize(("waited", "late"), [(4.0, []), (6.0, ["DatabaseBusy"] * 2)])
def test_rating_that_waits_longer_than_the_limit_for_a_commit_fails(
    sqlite_url: str, waited: float, late: Sequence[str]
) -> None:
    database = SlowDatabase(Settings(database_url=sqlite_url))
    store(database.engine, HEAT)

    async def rate_during_a_commit() -> list[BaseException | None]:
        group = GroupCommit(database, timeout=5.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clock)

        def rate(user_id: int) -> asyncio.Task[None]:
            repository = MovieRepository(database.session())
            return loop.create_task(group.add(repository, NewRating(1, 3, user_id)))

        first = rate(1)
        await database.is_committing.wait()
        others = [rate(2), rate(3)]
        await asyncio.sleep(0)  # lets them arrive
        loop.now += waited
        database.may_commit.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    with asyncio.Runner(loop_factory=Clock) as runner:
        results = runner.run(rate_during_a_commit())
    stored = len(rating_rows(database.engine))
    database.engine.dispose()

    assert [type(result).__name__ for result in results if result is not None] == late
    assert stored == 3 - len(late)


def test_rating_may_arrive_while_a_batch_is_chosen(sqlite_url: str) -> None:
    database = SlowDatabase(Settings(database_url=sqlite_url))
    store(database.engine, HEAT)
    database.may_commit.set()

    async def rate() -> None:
        group = GroupCommit(database, timeout=5.0)
        late: list[asyncio.Task[None]] = []

        class WatchedSession(Session):
            """Lets a rating arrive when a batch looks at the session's engine."""

            @property
            def bind(self) -> Engine:
                """Return the engine."""
                if not late:
                    late.append(asyncio.ensure_future(group.add(repository(), rating_of(3))))
                    group.waiting.append(group.waiting[-1]._replace(rating=rating_of(4)))
                return database.engine

            @bind.setter
            def bind(self, _: object) -> None:
                """Take the engine of a new session."""

        def repository() -> MovieRepository:
            return MovieRepository(WatchedSession(database.engine))

        def rating_of(user_id: int) -> NewRating:
            return NewRating(1, 3, user_id)

        await asyncio.gather(*(group.add(repository(), rating_of(user)) for user in (1, 2)))
        await asyncio.gather(*late)

    asyncio.run(rate())
    stored = stored_by(database.engine)
    database.engine.dispose()

    assert sorted(stored) == [(1, user_id, 3) for user_id in (1, 2, 3, 4)]


@pytest.mark.ci
def test_two_services_that_rate_the_same_movies_in_any_order_never_deadlock(
    settings: Settings, engine: Engine
) -> None:
    movies = range(1, 31)
    store(engine, *(HEAT._replace(title=f"Movie {n}") for n in movies))
    orders: list[Callable[[range], list[int]]] = [list, lambda r: list(reversed(r))]
    with (
        TestClient(create_app(settings)) as first,
        TestClient(create_app(settings)) as second,
        ThreadPoolExecutor(12) as pool,
    ):
        for client in (first, second):
            # FastAPI prepares a route at its first request, which is not safe in two threads.
            client.post("/ratings/batch", json=[])
            client.post("/ratings", json={})

        def rate_all(client: TestClient, user_id: int) -> int:
            order = orders[user_id % 2](movies)
            batch = [rating(movie_id, user_id) for movie_id in order]
            return client.post("/ratings/batch", json=batch).status_code

        def rate_one(client: TestClient, user_id: int) -> int:
            movie_id = orders[user_id % 2](movies)[user_id % 30]
            return client.post("/ratings", json=rating(movie_id, user_id + 1000)).status_code

        sent = [
            pool.submit(rate, client, 2 * user_id + number)
            for user_id in range(1, 21)
            for number, client in enumerate((first, second))
            for rate in (rate_all, rate_one)
        ]
        statuses = Counter(each.result() for each in sent)

    assert statuses == {204: 80}
    assert len(rating_rows(engine)) == 40 * 31
    assert problems_of(engine) == []

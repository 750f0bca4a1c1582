"""Ratings that wait for a commit share the next one, and none of them shows it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import copy

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlmodel import Session

from app.config import Settings
from app.db import create_db_engine
from app.dependencies import get_repository
from app.logs import Event
from app.main import create_app
from app.read_models import RatingRead
from app.repository import MovieRepository
from tests.databases import locked
from tests.helpers import HEAT, RONIN, problems_of, rating_rows, store
from tests.server import DEADLINE_SECONDS, wait_until

Answers = list[Future[httpx2.Response]]

UNKNOWN_MOVIE = {"detail": "Movie not found"}
BUSY = {"detail": "The database is busy, try again in a moment"}
FULL = {"detail": "The database's disk is full, nothing was stored"}


class Commits:
    """Counts the transactions that store ratings."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        self.begun = threading.Event()
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        # What each engine's transaction begins with.
        if statement == "BEGIN IMMEDIATE" or "FOR NO KEY UPDATE" in statement:
            self.begun.set()
        self.count += statement.startswith("INSERT INTO rating")


class Group:
    """Sends ratings that wait, in their order, while another transaction keeps the database."""

    def __init__(self, app: FastAPI, client: TestClient) -> None:
        self._app = app
        self._client = client
        self._commits = Commits(app.state.engine)

    @property
    def commits(self) -> int:
        """How many transactions have stored ratings."""
        return self._commits.count

    def count_waiting(self) -> int:
        """Return how many ratings wait for the commit after the one that runs."""
        assert self._client.portal is not None
        return self._client.portal.call(lambda: len(self._app.state.group_commit.get().waiting))

    @contextmanager
    def waiting(self, *ratings: dict[str, int]) -> Iterator[Answers]:
        """Yield the answers to come, while all but the first rating wait for the next commit."""
        url = self._app.state.settings.database_url
        with ThreadPoolExecutor(len(ratings)) as pool:
            answers: Answers = []
            with locked(url):
                for number, rating in enumerate(ratings):
                    headers = {"X-Trace-Id": f"rating-{number}"}
                    answers.append(
                        pool.submit(self._client.post, "/ratings", json=rating, headers=headers)
                    )
                    if number == 0:
                        assert self._commits.begun.wait(DEADLINE_SECONDS)
                    else:
                        wait_until(lambda n=number: self.count_waiting() == n, lambda: "not sent")  # type: ignore[misc] # bound early
                yield answers

    def send(self, *ratings: dict[str, int]) -> list[httpx2.Response]:
        """Return the answers to ratings of which all but the first wait for the next commit."""
        with self.waiting(*ratings) as answers:
            pass
        return [answer.result() for answer in answers]


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings with which a rating waits for as long as a test takes."""
    return Settings(database_url=database_url, auto_setup=False, busy_timeout=DEADLINE_SECONDS)


@pytest.fixture
def group(app: FastAPI, client: TestClient) -> Group:
    """Ratings on the test's database, which has two movies."""
    store(app.state.engine, HEAT, RONIN)
    return Group(app, client)


def rating(movie_id: int, user_id: int, score: int = 3) -> dict[str, int]:
    """Return a rating as it is sent."""
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


def test_a_rating_that_finds_no_commit_running_waits_for_no_company(
    group: Group, client: TestClient
) -> None:
    for user_id in (1, 2, 3):
        assert client.post("/ratings", json=rating(1, user_id)).status_code == 204

    assert group.commits == 3


def test_ratings_are_answered_when_others_can_see_them_and_never_before(
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


def test_a_rating_of_an_unknown_movie_is_404_to_its_sender_only(
    group: Group, engine: Engine
) -> None:
    answers = group.send(*(rating(movie_id, 7) for movie_id in (1, 99, 98, 2, 99)))

    assert [answer.status_code for answer in answers] == [204, 404, 404, 204, 404]
    assert {answer.content for answer in answers if answer.status_code == 204} == {b""}
    assert [a.json() for a in answers if a.status_code == 404] == [UNKNOWN_MOVIE] * 3
    assert stored_by(engine) == [(1, 7, 3), (2, 7, 3)]
    assert problems_of(engine) == []


def test_of_two_ratings_by_one_user_for_one_movie_the_later_stands(
    group: Group, engine: Engine
) -> None:
    answers = group.send(
        rating(2, 1), rating(1, 7, 5), rating(1, 8, 4), rating(1, 7, 1), rating(2, 1, 2)
    )

    assert {answer.status_code for answer in answers} == {204}
    assert group.commits == 2
    assert stored_by(engine) == [(2, 1, 2), (1, 7, 1), (1, 8, 4)]
    assert problems_of(engine) == []


def test_all_that_wait_for_a_lock_too_long_are_503_and_service_goes_on(
    database_url: str, engine: Engine
) -> None:
    app = create_app(Settings(database_url=database_url, auto_setup=False, busy_timeout=0.2))
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
def test_a_full_disk_is_507_to_all_that_share_the_commit(sqlite_url: str) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False, log_level="ERROR"))
    store(app.state.engine, HEAT)
    pages = 1  # fewer than there are: the file may not grow

    @event.listens_for(app.state.engine, "before_cursor_execute")
    def limit(_connection: Connection, cursor: DBAPICursor, *_: object) -> None:
        cursor.execute(f"PRAGMA max_page_count={pages}")

    with TestClient(app, raise_server_exceptions=False) as client, ThreadPoolExecutor(8) as pool:

        def rate(user_id: int) -> httpx2.Response:
            return client.post("/ratings", json=rating(1, user_id))

        answers = list(pool.map(rate, range(1, 401)))
        stored = len(rating_rows(app.state.engine))
        problems = problems_of(app.state.engine)
        pages = 2**31
        afterwards = rate(1000)

    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {204, 507}
    assert all(answer.json() == FULL for answer in answers if answer.status_code == 507)
    assert stored == statuses[204]
    assert problems == []
    assert afterwards.status_code == 204


def test_each_rating_logs_one_event_with_its_own_trace_id_after_the_commit(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    def added() -> list[dict[str, object]]:
        logged = [record.msg for record in caplog.records if isinstance(record.msg, Event)]
        return [event.fields for event in logged if event.name == "rating.added"]

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
def test_a_client_that_goes_away_does_not_undo_the_ratings_of_others(
    app: FastAPI, client: TestClient, engine: Engine, leaving: int
) -> None:
    store(engine, HEAT)
    commits = Commits(app.state.engine)
    portal = client.portal
    assert portal is not None

    async def rate(user_id: int) -> int:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as own:
            return (await own.post("/ratings", json=rating(1, user_id))).status_code

    with locked(app.state.settings.database_url):
        senders = [portal.start_task_soon(rate, 1)]
        assert commits.begun.wait(DEADLINE_SECONDS)
        senders += [portal.start_task_soon(rate, user_id) for user_id in (2, 3, 4)]
        group = Group(app, client)
        wait_until(lambda: group.count_waiting() == 3, lambda: "not sent")
        senders[leaving].cancel()
    others = [sender for number, sender in enumerate(senders) if number != leaving]
    statuses = [sender.result(DEADLINE_SECONDS) for sender in others]

    assert statuses == [204] * 3
    users = {user_id for _, user_id, _ in stored_by(engine)}
    assert users >= {1, 2, 3, 4} - {leaving + 1}
    assert problems_of(engine) == []


def test_a_repository_that_somebody_has_put_in_is_the_one_that_is_used(
    sqlite_url: str, sqlite_template: Path, tmp_path: Path
) -> None:
    app = create_app(Settings(database_url=sqlite_url, auto_setup=False))
    other = create_db_engine(f"sqlite:///{copy(sqlite_template, tmp_path / 'other.db')}")
    store(other, HEAT)
    used: list[MovieRepository] = []

    class OwnRepository(MovieRepository):
        def add_rating(self, movie_id: int, score: int, user_id: int | None = None) -> RatingRead:
            used.append(self)
            return super().add_rating(movie_id, score, user_id)

    async def own_repository() -> MovieRepository:
        return OwnRepository(Session(other))

    app.dependency_overrides[get_repository] = own_repository

    with TestClient(app) as client, ThreadPoolExecutor(4) as pool:

        def rate(user_id: int) -> int:
            return client.post("/ratings", json=rating(1, user_id)).status_code

        statuses = list(pool.map(rate, range(1, 9)))
        ratings = (sorted(stored_by(other)), stored_by(app.state.engine))
    other.dispose()

    assert statuses == [204] * 8
    assert len({id(repository) for repository in used}) == 8
    assert ratings == ([(1, user_id, 3) for user_id in range(1, 9)], [])


def test_groups_of_two_processes_that_rate_the_same_movies_never_deadlock(
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
            # FastAPI prepares a route at its first request, which two threads at once disturb.
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

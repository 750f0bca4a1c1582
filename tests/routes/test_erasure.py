"""A person's ratings are erased in one call."""

from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlmodel import Session

from app.read_models import NewRating
from app.repository import MovieRepository
from tests.helpers import (
    HEAT,
    RONIN,
    THREADS,
    everything,
    in_threads,
    problems_of,
    rating_rows,
    store,
)
from tests.server import Command

USER = 42


def rate(engine: Engine, *users: int) -> None:
    """Rate every movie by each user."""
    with Session(engine) as session:
        repository = MovieRepository(session)
        movies = [movie.id for movie in repository.list(limit=2000)]
        repository.add_ratings(
            [NewRating(movie, 1 + user % 5, user) for movie in movies for user in users]
        )


def test_all_ratings_of_a_user_and_of_no_other_are_deleted(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT, RONIN)
    rate(engine, USER, 8)
    client.post("/ratings", json={"movie_id": 1, "score": 1})

    responses = [client.delete("/ratings", params={"user_id": USER}) for _ in range(2)]

    # The second time, nobody knows the user.
    assert [(response.status_code, response.content) for response in responses] == [(204, b"")] * 2
    users = [(rating["movie_id"], rating["user_id"]) for rating in client.get("/ratings").json()]
    assert sorted(users, key=str) == [(1, 8), (1, None), (2, 8)]
    assert client.get("/movies/1").json()["average_rating"] == 2.5
    assert problems_of(engine) == []


def test_more_ratings_than_a_statement_takes_are_deleted(engine: Engine) -> None:
    store(engine, *(HEAT._replace(title=f"Movie {number}") for number in range(1100)))
    rate(engine, USER)

    with Session(engine) as session:
        assert MovieRepository(session).remove_ratings(USER) == 1100
        assert MovieRepository(session).list_ratings().total == 0
    assert problems_of(engine) == []


def test_without_one_user_nothing_is_deleted(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    rate(engine, USER)
    before = everything(engine)

    for query in (
        "",
        "user_id=",
        "user_id=0",
        "user_id=x",
        "user_id=42&movie_id=1",
        "user_id=42&user_id=43",
    ):
        assert (query, client.delete(f"/ratings?{query}").status_code) == (query, 422)

    assert everything(engine) == before


def test_erasing_beside_batches_neither_deadlocks_nor_miscounts(engine: Engine) -> None:
    store(engine, *(HEAT._replace(title=f"Movie {number}") for number in range(20)))
    rate(engine, *range(1, THREADS + 1))

    def work(session: Session, number: int) -> None:
        repository = MovieRepository(session)
        for _ in range(5):
            if number % 2:
                repository.remove_ratings(number)
            else:
                # The opposite order: batches lock by id too.
                repository.add_ratings([NewRating(movie, 5, number) for movie in range(20, 0, -1)])

    in_threads(engine, work)

    assert problems_of(engine) == []


def test_rating_is_erased_once_by_concurrent_requests(engine: Engine) -> None:
    store(engine, *(HEAT._replace(title=f"Movie {number}") for number in range(20)))
    rate(engine, USER, 8)
    removed: list[int] = []

    in_threads(
        engine, lambda session, _: removed.append(MovieRepository(session).remove_ratings(USER))
    )

    assert sorted(removed) == [*[0] * (THREADS - 1), 20]
    assert problems_of(engine) == []


def test_command_forgets_a_user(database_url: str, engine: Engine, command: Command) -> None:
    store(engine, HEAT, RONIN)
    rate(engine, USER, 8)

    finished = [command(database_url, "forget", str(USER)) for _ in range(2)]

    assert [done.output for done in finished] == [
        "Deleted 2 rating(s)\n",
        "Deleted 0 rating(s)\n",
    ]
    assert {row["user_id"] for row in rating_rows(engine)} == {8}
    assert problems_of(engine) == []


def test_command_refuses_what_is_no_user(
    database_url: str, engine: Engine, command: Command
) -> None:
    store(engine, HEAT)
    rate(engine, USER)

    for user in ("0", "x", "", str(2**53)):
        assert command(database_url, "forget", user).exit_code != 0
    assert len(rating_rows(engine)) == 1

"""Similar movies and recommendations: training, the stored neighbours and the responses."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import pytest
from fastapi.testclient import TestClient
from rich.progress import Progress
from sqlalchemy import Engine, delete, insert, select, text
from sqlmodel import Session

from app.db import create_db_engine, create_migration_engine
from app.recommender.neighbours import read_likes, replace_neighbours
from app.recommender.repository import RecommendationRepository
from app.recommender.training import REGULARIZATION, Likes, Neighbours, learn
from app.repository import MovieRepository
from app.startup import STARTER_MOVIES
from app.tables import NEIGHBOUR
from tests.databases import needs_postgresql
from tests.helpers import in_threads
from tests.server import Command, Commands, Finished, wait_until

SILENT = Progress(disable=True)
USER = 7


def store_movies(engine: Engine, *genres: str) -> list[int]:
    """Store movies of these genres, titled A, B, C and so on, and return their ids."""
    titles = ("".join(letters) for n in (1, 2) for letters in product(ascii_uppercase, repeat=n))
    with Session(engine) as session:
        repository = MovieRepository(session)
        return [
            repository.create(title=title, year=2000, genre=genre).id
            for title, genre in zip(titles, genres, strict=False)
        ]


def rate(engine: Engine, scores: dict[int, int], user_id: int | None = USER) -> None:
    """Store a user's ratings, in order."""
    with Session(engine) as session:
        for movie_id, score in scores.items():
            MovieRepository(session).add_rating(movie_id, score, user_id)


def relate(engine: Engine, weights: dict[tuple[int, int], float]) -> None:
    """Store neighbours."""
    rows = [
        {"movie_id": movie_id, "neighbour_id": neighbour_id, "weight": weight}
        for (movie_id, neighbour_id), weight in weights.items()
    ]
    with engine.begin() as connection:
        connection.execute(insert(NEIGHBOUR), rows)


def neighbour_rows(engine: Engine) -> list[tuple[int, int, float]]:
    """Return the stored neighbours."""
    with engine.connect() as connection:
        rows = connection.execute(select(NEIGHBOUR).order_by(*NEIGHBOUR.primary_key))
        return [(row.movie_id, row.neighbour_id, row.weight) for row in rows]


def rows_of(neighbours: Neighbours) -> list[tuple[int, int, float]]:
    """Return neighbours in the form of neighbour_rows()."""
    return [*zip(*(column.tolist() for column in neighbours), strict=True)]


def pairs(*ids: tuple[int, int, float]) -> Neighbours:
    """Return neighbours in the form that training returns."""
    movies, neighbours, weights = zip(*ids, strict=True)
    return Neighbours(np.array(movies), np.array(neighbours), np.array(weights, np.float32))


def titles(client: TestClient, path: str) -> list[str]:
    """Return the titles of a list, in order."""
    response = client.get(path)
    assert response.status_code == 200, response.text
    return [movie["title"] for movie in response.json()]


def test_similar_movies_are_ordered_by_weight_and_blockbusters_need_more(
    engine: Engine, client: TestClient
) -> None:
    a, b, c, d = store_movies(engine, "Drama", "Drama", "Drama", "Drama")
    # B scores 0.0125, C with its 30 ratings 0.0072 and D 0.008.
    relate(engine, {(a, b): 0.5, (a, c): 0.6, (a, d): 0.4, (b, a): 1})
    for user_id in range(1, 31):
        rate(engine, {c: 3}, user_id)

    assert titles(client, f"/movies/{a}/similar?limit=3") == ["B", "D", "C"]


def test_movies_similar_to_an_unknown_movie_are_a_404(client: TestClient) -> None:
    response = client.get("/movies/1/similar")

    assert (response.status_code, response.json()) == (404, {"detail": "Movie not found"})


def test_untrained_service_uses_the_weighted_ranking(engine: Engine, client: TestClient) -> None:
    with Session(engine) as session:
        MovieRepository(session).create_missing(STARTER_MOVIES)
    rate(engine, {2: 5, 3: 4}, user_id=None)
    best = client.get("/movies/top?ranking=weighted").json()

    similar = client.get("/movies/2/similar").json()
    recommended = client.get(f"/recommendations/{USER}").json()

    assert len(best) == len(STARTER_MOVIES)
    assert similar == best[1:]
    assert recommended == [movie | {"because": []} for movie in best]


def test_recommendations_sum_the_weights_of_likes_and_name_the_largest(
    engine: Engine, client: TestClient
) -> None:
    a, b, c, d, e, f, g = store_movies(engine, *["Drama"] * 7)
    # The likes are d, c, b, a, latest first. e is rated, but too low to be a like.
    rate(engine, {e: 3, a: 5, b: 5, c: 4, d: 5})
    relate(
        engine,
        {
            (a, f): 0.2, (b, f): 0.2, (c, f): 0.2, (d, f): 0.1,
            (c, g): 0.9,
            (a, e): 9, (a, d): 9, (e, g): 9,
        },
    )  # fmt: skip

    response = client.get(f"/recommendations/{USER}?limit=2")

    # g: 0.9 * 0.7 * 20/21 = 0.6; f: 0.2 * 20/23 + 0.2 * 20/22 + 0.2 * 0.7 * 20/21 + 0.1 = 0.59.
    like = {
        movie_id: {"id": movie_id, "title": chr(ord("A") + movie_id - a)} for movie_id in (a, b, c)
    }
    assert [(movie["title"], movie["because"]) for movie in response.json()] == [
        ("G", [like[c]]),
        ("F", [like[b], like[a], like[c]]),
    ]


def test_recommendation_has_every_field_of_the_movie(engine: Engine, client: TestClient) -> None:
    a, b = store_movies(engine, "Drama", "Crime")
    rate(engine, {a: 5})
    relate(engine, {(a, b): 0.1})

    [recommended] = client.get(f"/recommendations/{USER}").json()

    assert recommended == client.get(f"/movies/{b}").json() | {"because": [{"id": a, "title": "A"}]}


def test_rating_counts_in_the_next_response(engine: Engine, client: TestClient) -> None:
    a, b, c, d = store_movies(engine, *["Drama"] * 4)
    relate(engine, {(a, c): 0.1, (b, d): 0.2})
    path = f"/recommendations/{USER}?limit=1"

    seen = [titles(client, path)]
    for movie_id, score in ((a, 5), (b, 5), (b, 2)):
        rating = {"movie_id": movie_id, "user_id": USER, "score": score}
        assert client.post("/ratings", json=rating).status_code == 204
        seen.append(titles(client, path))
    client.delete(f"/movies/{b}/ratings/{USER}")
    client.delete(f"/movies/{a}/ratings/{USER}")
    seen.append(titles(client, path))

    assert seen == [["A"], ["C"], ["D"], ["C"], ["A"]]


def test_only_the_latest_likes_count(engine: Engine, client: TestClient) -> None:
    *likes, a, b = store_movies(engine, *["Drama"] * 103)
    relate(engine, {(likes[0], a): 9, (likes[1], b): 0.1})
    rate(engine, dict.fromkeys(likes, 5))

    [movie] = client.get(f"/recommendations/{USER}?limit=1").json()

    assert movie["id"] == b


def test_genre_filter_matches_any_genre_of_a_movie_before_the_limit(
    engine: Engine, client: TestClient
) -> None:
    a, b, c, d = store_movies(engine, *["Drama"] * 4)
    with Session(engine) as session:
        MovieRepository(session).update(c, genres=["Drama", "Sci-Fi"])
        MovieRepository(session).update(d, genres=["Sci-Fi"])
    rate(engine, {a: 5})
    relate(engine, {(a, b): 0.9, (a, c): 0.1})

    assert titles(client, f"/recommendations/{USER}?genre=sci-fi&limit=1") == ["C"]
    assert titles(client, f"/recommendations/{USER}?genre=sci-fi") == ["C", "D"]


def test_year_filters_apply_before_the_limit(engine: Engine, client: TestClient) -> None:
    a, b, c, d = store_movies(engine, *["Drama"] * 4)
    with Session(engine) as session:
        MovieRepository(session).update(c, year=1990)
        MovieRepository(session).update(d, year=1980)
    rate(engine, {a: 5})
    relate(engine, {(a, b): 0.9, (a, c): 0.1})

    assert titles(client, f"/recommendations/{USER}?year_max=1990&limit=1") == ["C"]
    assert titles(client, f"/recommendations/{USER}?year_max=1990") == ["C", "D"]
    assert titles(client, f"/recommendations/{USER}?year_min=1985") == ["B", "C"]
    assert titles(client, f"/recommendations/{USER}?year_min=1985&year_max=1985") == []


def test_list_is_full_and_has_no_duplicates_while_there_are_movies(
    engine: Engine, client: TestClient
) -> None:
    a, b, c, d, e = store_movies(engine, *["Drama"] * 5)
    rate(engine, {a: 5, b: 3})
    rate(engine, {a: 5, b: 5, c: 5, d: 4}, user_id=1)
    relate(engine, {(a, d): 0.1, (a, e): 0.05})

    recommended = client.get(f"/recommendations/{USER}").json()

    assert [(movie["id"], len(movie["because"])) for movie in recommended] == [
        (d, 1),
        (e, 1),
        (c, 0),
    ]
    assert titles(client, f"/recommendations/{USER}?limit=2") == ["D", "E"]
    assert titles(client, f"/movies/{a}/similar?limit=3") == ["D", "E", "C"]


def test_deleted_movie_leaves_no_neighbours(any_engine: Engine) -> None:
    a, b, c = store_movies(any_engine, *["Drama"] * 3)
    relate(any_engine, {(a, b): 0.1, (b, a): 0.1, (b, c): 0.1, (a, c): 0.1})

    with Session(any_engine) as session:
        MovieRepository(session).delete(b)
        similar = RecommendationRepository(session).similar(a)

    assert [movie.id for movie in similar] == [c]
    assert neighbour_rows(any_engine) == [(a, c, 0.1)]


def test_weights_equal_those_of_the_inverse() -> None:
    rng = np.random.default_rng(1)
    users, movies = np.nonzero(rng.random((60, 8)) < 0.4)
    likes = Likes(movies + 10, users * 2**40)
    matrix = np.zeros((60, 8))
    matrix[users, movies] = 1

    neighbours = learn(likes, SILENT)

    expected = -np.linalg.inv(matrix.T @ matrix + REGULARIZATION * np.eye(8))
    np.fill_diagonal(expected, 0)
    rows, columns = np.nonzero(expected > 0)
    assert neighbours.movie_ids.tolist() == (rows + 10).tolist()
    assert neighbours.neighbour_ids.tolist() == (columns + 10).tolist()
    np.testing.assert_allclose(neighbours.weights, expected[rows, columns], rtol=1e-3)


def test_only_the_largest_weights_are_kept_in_any_order_of_the_likes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    users, movies = np.nonzero(rng.random((200, 30)) < np.linspace(0.1, 0.9, 30))
    likes, shuffled = Likes(movies, users), rng.permutation(len(users))
    whole = {(movie, other): weight for movie, other, weight in rows_of(learn(likes, SILENT))}
    monkeypatch.setattr("app.recommender.training.NEIGHBOURS", 3)
    monkeypatch.setattr("app.recommender.training.BLOCK", 7)

    kept = rows_of(learn(likes, SILENT))

    assert kept == rows_of(learn(Likes(movies[shuffled], users[shuffled]), SILENT))
    for movie in range(30):
        weights = sorted(weight for (one, _), weight in whole.items() if one == movie)
        mine = sorted(weight for one, _, weight in kept if one == movie)
        assert mine == pytest.approx(weights[-3:], rel=1e-3)


def test_movies_with_few_likes_or_beyond_the_limit_are_not_learnt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.recommender.training.MAX_MOVIES", 3)
    # Movie n is liked by users 1 to n, so the first four have too few likes.
    users, movies = np.nonzero(np.tri(9, dtype=bool).T)

    learnt = learn(Likes(movies + 1, users), SILENT)

    assert {*learnt.movie_ids.tolist(), *learnt.neighbour_ids.tolist()} == {7, 8, 9}


@pytest.mark.parametrize("likes", [[], [(1, 1)], [(1, user) for user in range(9)]])
def test_too_few_likes_make_no_neighbours(likes: list[tuple[int, int]]) -> None:
    movie_ids, user_ids = np.array(likes, np.int64).reshape(-1, 2).T

    assert rows_of(learn(Likes(movie_ids, user_ids), SILENT)) == []


def test_scores_of_4_and_5_by_users_are_likes(engine: Engine, session: Session) -> None:
    a, b = store_movies(engine, "Drama", "Drama")
    rate(engine, {a: 5, b: 3}, user_id=1)
    rate(engine, {a: 2, b: 4}, user_id=2**53 - 1)
    rate(engine, {a: 5, b: 5}, user_id=None)

    likes = read_likes(session, SILENT)

    assert sorted(zip(*(column.tolist() for column in likes), strict=True)) == [
        (a, 1),
        (b, 2**53 - 1),
    ]


def test_storing_replaces_all_neighbours_and_skips_deleted_movies(
    engine: Engine, database_url: str
) -> None:
    a, b, c = store_movies(engine, *["Drama"] * 3)
    relate(engine, {(a, c): 0.5})
    gone = 2**31 - 1
    learnt = pairs((a, b, 0.25), (a, gone, 0.25), (b, a, 0.25), (gone, a, 0.25))

    replace_neighbours(create_migration_engine(database_url, lock_timeout=5), learnt)

    assert neighbour_rows(engine) == [(a, b, 0.25), (b, a, 0.25)]


def test_concurrent_trainings_and_ratings_all_succeed(engine: Engine, database_url: str) -> None:
    ids = store_movies(engine, *["Drama"] * 40)
    wholes = [
        pairs(*((one, other, weight) for one in ids for other in ids if one != other))
        for weight in (0.25, 0.5)
    ]

    def work(session: Session, number: int) -> None:
        if number <= len(wholes):
            training_engine = create_migration_engine(database_url, lock_timeout=60)
            for _ in range(3):
                replace_neighbours(training_engine, wholes[number - 1])
        else:
            for movie_id in ids:
                MovieRepository(session).add_rating(movie_id, 5, number)

    in_threads(engine, work)

    assert neighbour_rows(engine) in [rows_of(whole) for whole in wholes]
    with Session(engine) as session:
        assert MovieRepository(session).list_ratings(limit=1).total == 2 * len(ids)


@needs_postgresql
def test_deleting_a_movie_only_delays_training(
    postgres_url: str,
) -> None:
    engine = create_db_engine(postgres_url)
    a, b, c = store_movies(engine, *["Drama"] * 3)
    relate(engine, {(a, c): 0.5, (c, a): 0.5})
    training_engine = create_migration_engine(postgres_url, lock_timeout=60)
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    watching_engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    with (
        ThreadPoolExecutor(1) as pool,
        engine.connect() as deleting,
        watching_engine.connect() as watching,
    ):
        # In a deadlock PostgreSQL would roll back the training, not the deletion.
        deleting.execute(text("SET LOCAL deadlock_timeout = '1h'"))
        deleting.execute(delete(NEIGHBOUR).where(NEIGHBOUR.c.movie_id == c))
        trained = pool.submit(
            replace_neighbours, training_engine, pairs((a, b, 0.25), (b, a, 0.25))
        )
        wait_until(
            lambda: watching.scalar(waiting) > 0,
            lambda: "the training does not wait for the deletion",
        )
        deleting.execute(delete(NEIGHBOUR).where(NEIGHBOUR.c.neighbour_id == c))
        deleting.commit()
        trained.result()

    assert neighbour_rows(engine) == [(a, b, 0.25), (b, a, 0.25)]
    engine.dispose()


@needs_postgresql
def test_postgresql_has_statistics_of_the_new_neighbours(postgres_url: str) -> None:
    engine = create_db_engine(postgres_url)
    ids = store_movies(engine, *["Drama"] * 12)
    whole = pairs(*((one, other, 0.5) for one in ids for other in ids if one != other))

    replace_neighbours(create_migration_engine(postgres_url, lock_timeout=60), whole)

    with engine.connect() as connection:
        counted = text("SELECT reltuples FROM pg_class WHERE oid = 'neighbour'::regclass")
        assert connection.scalar(counted) == 12 * 11
    engine.dispose()


HALF_WAY = """
import sys
from sqlalchemy import Engine, event

@event.listens_for(Engine, "after_cursor_execute")
def stop_half_way(_connection, _cursor, statement, *_):
    if statement.startswith("INSERT INTO neighbour"):
        print("half way", flush=True)
        sys.stdin.read()

sys.argv = ["db.py", "train"]
from scripts import db
db.main()
"""


@pytest.mark.slow
@pytest.mark.ci
def test_training_killed_midway_leaves_the_old_neighbours(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    a, b = store_movies(engine, "Drama", "Drama")
    for user_id in range(1, 9):
        rate(engine, {a: 5, b: 5}, user_id)
    relate(engine, {(a, b): 0.5})
    training = Commands(tmp_path, database_url=database_url).start("-c", HALF_WAY)
    assert training.stdout is not None

    assert training.stdout.readline() == "half way\n"
    training.send_signal(signal.SIGKILL)
    training.communicate()

    assert neighbour_rows(engine) == [(a, b, 0.5)]
    rate(engine, {a: 4}, user_id=1)


@pytest.mark.slow
@pytest.mark.ci
def test_serving_loads_neither_numpy_nor_scipy(tmp_path: Path) -> None:
    program = "import sys, app.main, scripts.db; print({'numpy', 'scipy'} & {*sys.modules})"

    finished = Commands(tmp_path).python("-c", program)

    assert finished == Finished(0, "set()\n", "")


def test_training_stores_and_reports_its_result(
    engine: Engine, database_url: str, command: Command
) -> None:
    ids = store_movies(engine, *["Drama"] * 4)
    for user_id in range(1, 21):
        rate(engine, {movie_id: 5 for movie_id in ids if (movie_id + user_id) % 3}, user_id)
    with Session(engine) as session:
        likes = read_likes(session, SILENT)
    learnt = learn(likes, SILENT)

    finished = command(database_url, "train")

    assert (finished.exit_code, finished.errors) == (0, "")
    assert len(learnt.weights) > 0
    assert neighbour_rows(engine) == rows_of(learnt)
    summary = dict(re.findall(r"│ ([a-z ]+?) +│ +([\d.]+)", finished.output))
    assert summary.keys() == {"movies", "likes", "neighbours", "seconds", "peak memory"}
    assert (summary["movies"], summary["likes"]) == ("4", str(len(likes.movie_ids)))


def test_training_without_its_packages_names_what_to_install(
    database_url: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.recommender.commands.NEEDED", ("numpy", "not_installed"))

    finished = command(database_url, "train")

    # Unlike `uv sync --extra`, this keeps other installed extras.
    message = (
        "Training needs numpy and scipy. "
        "Run: uv run --extra recommender python scripts/db.py train\n"
    )
    assert finished == Finished(1, "", message)


def test_evaluate_prints_the_command_of_the_bench_and_trains_nothing(
    engine: Engine, database_url: str, command: Command
) -> None:
    ids = store_movies(engine, *["Drama"] * 4)
    for user_id in range(1, 21):
        rate(engine, {movie_id: 5 for movie_id in ids if (movie_id + user_id) % 3}, user_id)

    finished = command(database_url, "train", "--evaluate")

    line = (
        "uv run --group bench --extra recommender python scripts/bench --recommendations FOLDER\n"
    )
    assert finished == Finished(0, line, "")
    assert neighbour_rows(engine) == []

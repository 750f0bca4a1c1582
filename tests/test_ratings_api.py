"""Ratings over HTTP: /ratings and /movies/{id}/ratings/{user_id}."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine, update

from app.config import Settings
from app.main import create_app
from app.statements import RATING
from tests.helpers import HEAT, RONIN, Sample, movie_row, movie_rows, rating_rows, store

# SQLite and PostgreSQL number the rows that a test stores from 1.
HEAT_ID, RONIN_ID = 1, 2
UNKNOWN_MOVIE = {"detail": "Movie not found"}
UNKNOWN_RATING = {"detail": "Rating not found"}


def rate(client: TestClient, movie_id: int, score: int, user_id: int | None = None) -> None:
    """Give a rating, which must be taken."""
    body = {"movie_id": movie_id, "user_id": user_id, "score": score}
    assert client.post("/ratings", json=body).status_code == 204


def aggregates(client: TestClient, movie_id: int = HEAT_ID) -> tuple[float | None, int]:
    """Return the average and the number of ratings that a movie is answered with."""
    movie = client.get(f"/movies/{movie_id}").json()
    return movie["average_rating"], movie["rating_count"]


# Giving


def test_rating_is_stored_and_counts(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)

    response = client.post("/ratings", json={"movie_id": HEAT_ID, "user_id": 7, "score": 4})

    assert response.status_code == 204
    assert response.content == b""
    assert rating_rows(engine) == [{"id": 1, "movie_id": HEAT_ID, "user_id": 7, "score": 4}]
    assert movie_rows(engine) == [
        movie_row(HEAT_ID, HEAT._replace(scores=(4,))),
        movie_row(RONIN_ID, RONIN),
    ]


def test_rating_again_replaces_the_earlier_one(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    rate(client, HEAT_ID, 1, user_id=7)
    rate(client, HEAT_ID, 3, user_id=8)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with engine.begin() as connection:
        connection.execute(update(RATING).values(created_at=yesterday))
    before = datetime.now(UTC)

    response = client.post("/ratings", json={"movie_id": HEAT_ID, "user_id": 7, "score": 4})

    assert response.status_code == 204
    assert rating_rows(engine) == [
        {"id": 1, "movie_id": HEAT_ID, "user_id": 7, "score": 4},
        {"id": 2, "movie_id": HEAT_ID, "user_id": 8, "score": 3},
    ]
    assert aggregates(client) == (3.5, 2)
    [replaced, other] = client.get("/ratings").json()
    assert before <= datetime.fromisoformat(replaced["created_at"]) <= datetime.now(UTC)
    assert datetime.fromisoformat(other["created_at"]) == yesterday


@pytest.mark.parametrize("anonymous", [{}, {"user_id": None}])
def test_each_anonymous_rating_counts(
    client: TestClient, engine: Engine, anonymous: dict[str, None]
) -> None:
    store(engine, HEAT)

    for score in (5, 5, 2):
        response = client.post("/ratings", json={"movie_id": HEAT_ID, "score": score, **anonymous})
        assert response.status_code == 204

    scores = [(row["user_id"], row["score"]) for row in rating_rows(engine)]
    assert scores == [(None, 5), (None, 5), (None, 2)]
    assert aggregates(client) == (4.0, 3)


def test_anonymous_rating_leaves_the_users_alone(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    rate(client, HEAT_ID, 5, user_id=7)

    rate(client, HEAT_ID, 1)

    assert [(row["user_id"], row["score"]) for row in rating_rows(engine)] == [(7, 5), (None, 1)]
    assert aggregates(client) == (3.0, 2)


def test_bounds_of_a_rating_are_inside_them(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    rate(client, HEAT_ID, 1, user_id=1)
    rate(client, HEAT_ID, 5, user_id=2**31 - 1)

    rows = [(row["user_id"], row["score"]) for row in rating_rows(engine)]
    assert rows == [(1, 1), (2**31 - 1, 5)]


@pytest.mark.parametrize("user_id", [7, None])
@pytest.mark.parametrize("movie_id", [2, 2**31 - 1])
def test_rating_an_unknown_movie_is_404_and_stores_nothing(
    client: TestClient, engine: Engine, movie_id: int, user_id: int | None
) -> None:
    store(engine, HEAT)

    response = client.post("/ratings", json={"movie_id": movie_id, "user_id": user_id, "score": 5})

    assert response.status_code == 404
    assert response.json() == UNKNOWN_MOVIE
    assert rating_rows(engine) == []


def test_rating_that_was_read_can_be_sent_back(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    rate(client, HEAT_ID, 4, user_id=7)
    [read] = client.get("/ratings").json()

    response = client.post("/ratings", json={**read, "id": 99, "comment": None})

    assert response.status_code == 204
    assert rating_rows(engine) == [{"id": 1, "movie_id": HEAT_ID, "user_id": 7, "score": 4}]
    assert aggregates(client) == (4.0, 1)


# Giving many


def test_batch_is_stored_in_its_order_and_counts(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    rate(client, HEAT_ID, 1, user_id=7)

    response = client.post(
        "/ratings/batch",
        json=[
            {"movie_id": RONIN_ID, "user_id": 8, "score": 5},
            {"movie_id": HEAT_ID, "user_id": 7, "score": 2},
            {"movie_id": HEAT_ID, "score": 5},
            {"movie_id": RONIN_ID, "user_id": 8, "score": 3},
        ],
    )

    assert response.status_code == 204
    assert response.content == b""
    assert rating_rows(engine) == [
        {"id": 1, "movie_id": HEAT_ID, "user_id": 7, "score": 2},
        {"id": 2, "movie_id": RONIN_ID, "user_id": 8, "score": 3},
        {"id": 3, "movie_id": HEAT_ID, "user_id": None, "score": 5},
    ]
    assert aggregates(client) == (3.5, 2)
    assert aggregates(client, RONIN_ID) == (3.0, 1)


def test_batch_with_unknown_movies_is_404_that_names_positions_and_stores_nothing(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)
    movies = (HEAT_ID, 99, HEAT_ID, 98, 99)

    response = client.post(
        "/ratings/batch", json=[{"movie_id": movie_id, "score": 5} for movie_id in movies]
    )

    assert response.status_code == 404
    assert response.json() == {
        "detail": "Movie not found: at position 1, 3, 4 of the list, counted from zero"
    }
    assert rating_rows(engine) == []
    assert aggregates(client) == (None, 0)


def test_batch_with_a_wrong_value_is_422_that_names_position_and_field(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)

    response = client.post(
        "/ratings/batch",
        json=[
            {"movie_id": HEAT_ID, "score": 5},
            {"movie_id": HEAT_ID, "score": 6},
            {"movie_id": 0, "user_id": "x", "score": 1},
        ],
    )

    assert response.status_code == 422
    assert [problem["loc"] for problem in response.json()["detail"]] == [
        ["body", 1, "score"],
        ["body", 2, "movie_id"],
        ["body", 2, "user_id"],
    ]
    assert rating_rows(engine) == []


@pytest.mark.parametrize("length", [0, 1001])
def test_batch_of_none_or_too_many_is_422_and_stores_nothing(
    client: TestClient, engine: Engine, length: int
) -> None:
    store(engine, HEAT)

    response = client.post("/ratings/batch", json=[{"movie_id": HEAT_ID, "score": 5}] * length)

    assert response.status_code == 422
    assert [problem["loc"] for problem in response.json()["detail"]] == [["body"]]
    assert rating_rows(engine) == []


def test_batch_of_a_thousand_is_stored_however_widely_it_is_written(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)
    ratings = [
        {"movie_id": HEAT_ID, "user_id": 2**31 - 1 - n, "score": 1 + n % 5} for n in range(1000)
    ]

    response = client.post(
        "/ratings/batch",
        content=json.dumps(ratings, indent=8),
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 204
    assert aggregates(client) == (3.0, 1000)


def test_batch_needs_the_api_key(settings: Settings, engine: Engine) -> None:
    store(engine, HEAT)
    ratings = [{"movie_id": HEAT_ID, "score": 5}]
    with_key = settings.model_copy(update={"api_key": SecretStr("a key of sixteen")})

    with TestClient(create_app(with_key)) as client:
        refused = client.post("/ratings/batch", json=ratings)
        stored_before = rating_rows(engine)
        taken = client.post(
            "/ratings/batch", json=ratings, headers={"X-API-Key": "a key of sixteen"}
        )

    assert refused.status_code == 401
    assert stored_before == []
    assert taken.status_code == 204


# Listing


def test_no_ratings_are_an_empty_list(client: TestClient) -> None:
    response = client.get("/ratings")

    assert response.status_code == 200
    assert response.json() == []
    assert response.headers["X-Total-Count"] == "0"


def test_ratings_are_a_bare_list_by_id(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    before = datetime.now(UTC)
    rate(client, RONIN_ID, 5, user_id=8)
    rate(client, HEAT_ID, 3)
    after = datetime.now(UTC)

    response = client.get("/ratings")

    assert response.status_code == 200
    assert response.headers["X-Total-Count"] == "2"
    ratings = response.json()
    times = [datetime.fromisoformat(rating.pop("created_at")) for rating in ratings]
    assert ratings == [
        {"id": 1, "movie_id": RONIN_ID, "user_id": 8, "score": 5},
        {"id": 2, "movie_id": HEAT_ID, "user_id": None, "score": 3},
    ]
    assert before <= times[0] <= times[1] <= after
    assert all(time.utcoffset() == timedelta(0) for time in times)


def test_ratings_are_filtered_by_movie_and_user(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    for movie_id, user_id in ((1, 7), (1, 8), (2, 7), (2, None)):
        rate(client, movie_id, 3, user_id)
    expected = {
        "": [1, 2, 3, 4],
        "movie_id=1": [1, 2],
        "user_id=7": [1, 3],
        "movie_id=2&user_id=7": [3],
        "movie_id=2&user_id=8": [],
        "movie_id=3": [],
        "user_id=2147483647": [],
        "movie_id=2&limit=1&offset=1": [4],
    }

    responses = {query: client.get(f"/ratings?{query}") for query in expected}

    found = {query: [row["id"] for row in answer.json()] for query, answer in responses.items()}
    assert found == expected
    totals = {query: answer.headers["X-Total-Count"] for query, answer in responses.items()}
    assert totals == {
        **{query: str(len(ids)) for query, ids in expected.items()},
        "movie_id=2&limit=1&offset=1": "2",
    }


def test_ratings_are_100_to_a_page_unless_told_otherwise(
    client: TestClient, engine: Engine
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (3,) * 101))

    response = client.get("/ratings")

    assert [rating["id"] for rating in response.json()] == list(range(1, 101))
    assert response.headers["X-Total-Count"] == "101"
    assert response.headers["Link"] == (
        '</ratings?limit=100&offset=0>; rel="first", '
        '</ratings?limit=100&offset=100>; rel="next", '
        '</ratings?limit=100&offset=100>; rel="last"'
    )
    assert len(client.get("/ratings?limit=1000").json()) == 101


@pytest.mark.parametrize("query", ["", "movie_id=1&"])
def test_walking_the_pages_meets_every_rating_once(
    client: TestClient, engine: Engine, query: str
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (1, 2, 3, 4, 5, 1, 2)))

    found: list[int] = []
    address: str | None = f"/ratings?{query}limit=3"
    while address is not None:
        response = client.get(address)
        found += [rating["id"] for rating in response.json()]
        address = response.links.get("next", {}).get("url")

    assert found == [1, 2, 3, 4, 5, 6, 7]


def test_offset_past_the_last_rating_is_an_empty_page(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (3,) * 7))

    response = client.get("/ratings?limit=3&offset=2147483647")

    assert response.json() == []
    assert response.headers["X-Total-Count"] == "7"
    assert response.links["prev"]["url"] == "/ratings?limit=3&offset=6"


# Taking back


def test_rating_taken_back_is_gone_and_no_longer_counts(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    rate(client, HEAT_ID, 5, user_id=7)
    rate(client, HEAT_ID, 2, user_id=8)
    rate(client, HEAT_ID, 2)
    rate(client, RONIN_ID, 1, user_id=7)

    response = client.delete(f"/movies/{HEAT_ID}/ratings/7")

    assert response.status_code == 204
    assert response.content == b""
    rows = [(row["movie_id"], row["user_id"], row["score"]) for row in rating_rows(engine)]
    assert rows == [(HEAT_ID, 8, 2), (HEAT_ID, None, 2), (RONIN_ID, 7, 1)]
    assert aggregates(client) == (2.0, 2)
    assert aggregates(client, RONIN_ID) == (1.0, 1)


def test_movie_whose_last_rating_is_taken_back_is_unrated_again(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)
    before = movie_rows(engine)
    rate(client, HEAT_ID, 5, user_id=7)

    client.delete(f"/movies/{HEAT_ID}/ratings/7")

    assert movie_rows(engine) == before
    assert aggregates(client) == (None, 0)
    assert client.get("/movies/top?min_ratings=1").json() == []


def test_aggregates_follow_every_rating(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    address = f"/movies/{HEAT_ID}/ratings"
    steps: list[tuple[str, str, dict[str, Any] | None, tuple[float | None, int]]] = [
        ("POST", "/ratings", {"user_id": 1, "score": 5}, (5.0, 1)),
        ("POST", "/ratings", {"user_id": 2, "score": 2}, (3.5, 2)),
        ("POST", "/ratings", {"user_id": 1, "score": 1}, (1.5, 2)),
        ("POST", "/ratings", {"user_id": 1, "score": 1}, (1.5, 2)),
        ("POST", "/ratings", {"score": 3}, (2.0, 3)),
        ("DELETE", f"{address}/2", None, (2.0, 2)),
        ("DELETE", f"{address}/1", None, (3.0, 1)),
        ("POST", "/ratings", {"user_id": 1, "score": 4}, (3.5, 2)),
    ]

    for method, path, body, expected in steps:
        rating = None if body is None else {"movie_id": HEAT_ID, **body}
        response = client.request(method, path, json=rating)
        assert response.status_code == 204
        assert aggregates(client) == expected


@pytest.mark.parametrize(
    ("movie_id", "user_id", "expected"),
    [
        (HEAT_ID, 8, UNKNOWN_RATING),
        (HEAT_ID, 9, UNKNOWN_RATING),
        (HEAT_ID, 2**31 - 1, UNKNOWN_RATING),
        (3, 7, UNKNOWN_MOVIE),
        (2**31 - 1, 7, UNKNOWN_MOVIE),
    ],
)
def test_taking_back_a_rating_that_is_not_there_is_404(
    client: TestClient, engine: Engine, movie_id: int, user_id: int, expected: dict[str, str]
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (3,)), RONIN)
    rate(client, HEAT_ID, 4, user_id=7)
    rate(client, RONIN_ID, 4, user_id=8)
    before = (movie_rows(engine), rating_rows(engine))

    response = client.delete(f"/movies/{movie_id}/ratings/{user_id}")

    assert response.status_code == 404
    assert response.json() == expected
    assert (movie_rows(engine), rating_rows(engine)) == before


def test_rating_can_be_taken_back_once(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    rate(client, HEAT_ID, 4, user_id=7)
    client.delete(f"/movies/{HEAT_ID}/ratings/7")

    response = client.delete(f"/movies/{HEAT_ID}/ratings/7")

    assert response.status_code == 404
    assert response.json() == UNKNOWN_RATING
    assert aggregates(client) == (None, 0)

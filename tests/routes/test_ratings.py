"""Ratings over HTTP: parameters, status codes, headers and JSON.

test_repository.py tests the queries and writes behind them.
"""

import json
from datetime import UTC, datetime, timedelta

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.helpers import HEAT, RONIN, Sample, movie_row, movie_rows, rating_rows, store

# Ids count from 1 in every test.
HEAT_ID, RONIN_ID = 1, 2


def rate(client: TestClient, movie_id: int, score: int, user_id: int | None = None) -> None:
    """Post a rating and expect success."""
    body = {"movie_id": movie_id, "user_id": user_id, "score": score}
    assert client.post("/ratings", json=body).status_code == 204


def aggregates(client: TestClient, movie_id: int = HEAT_ID) -> tuple[float | None, int]:
    """Return the average and the number of ratings in a movie's JSON."""
    movie = client.get(f"/movies/{movie_id}").json()
    return movie["average_rating"], movie["rating_count"]


# Rating


def test_rating_is_stored_and_updates_the_average(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)

    response = client.post("/ratings", json={"movie_id": HEAT_ID, "user_id": 7, "score": 4})

    assert response.status_code == 204
    assert response.content == b""
    assert rating_rows(engine) == [{"id": 1, "movie_id": HEAT_ID, "user_id": 7, "score": 4}]
    assert movie_rows(engine) == [
        movie_row(HEAT_ID, HEAT._replace(scores=(4,))),
        movie_row(RONIN_ID, RONIN),
    ]


def test_rating_without_a_user_or_with_null_is_anonymous(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)

    for anonymous in ({}, {"user_id": None}):
        body = {"movie_id": HEAT_ID, "score": 5, **anonymous}
        assert client.post("/ratings", json=body).status_code == 204

    assert [(row["user_id"], row["score"]) for row in rating_rows(engine)] == [(None, 5)] * 2


def test_lowest_and_highest_values_are_accepted(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    rate(client, HEAT_ID, 1, user_id=1)
    rate(client, HEAT_ID, 5, user_id=2**31 - 1)

    rows = [(row["user_id"], row["score"]) for row in rating_rows(engine)]
    assert rows == [(1, 1), (2**31 - 1, 5)]


def test_rating_in_a_batch_as_read_changes_nothing(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    rate(client, HEAT_ID, 4, user_id=7)
    [read] = client.get("/ratings").json()

    response = client.post("/ratings/batch", json=[{**read, "id": 99}])

    assert response.status_code == 204
    assert rating_rows(engine) == [{"id": 1, "movie_id": HEAT_ID, "user_id": 7, "score": 4}]
    assert aggregates(client) == (4.0, 1)


# Rating many movies


def test_batch_is_stored_in_order_and_updates_the_averages(
    client: TestClient, engine: Engine
) -> None:
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


def test_largest_batch_is_accepted_even_when_indented(client: TestClient, engine: Engine) -> None:
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


# Listing


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


def test_each_parameter_shapes_the_list(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    for movie_id, user_id in ((1, 7), (1, 8), (2, 7), (2, None)):
        rate(client, movie_id, 3, user_id)
    expected = {
        "movie_id=1": ([1, 2], "2"),
        "user_id=7": ([1, 3], "2"),
        "movie_id=2&user_id=7": ([3], "1"),
        "user_id=2147483647": ([], "0"),
        "movie_id=2&limit=1&offset=1": ([4], "2"),
        "after=1&offset=0": ([2, 3, 4], "4"),
    }

    responses = {query: client.get(f"/ratings?{query}") for query in expected}

    assert {
        query: ([rating["id"] for rating in answer.json()], answer.headers["X-Total-Count"])
        for query, answer in responses.items()
    } == expected


def test_page_contains_100_ratings_by_default(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (3,) * 101))

    response = client.get("/ratings")

    assert [rating["id"] for rating in response.json()] == list(range(1, 101))
    assert response.headers["X-Total-Count"] == "101"
    assert response.headers["Link"] == (
        '</ratings?limit=100&offset=0>; rel="first", '
        '</ratings?limit=100&after=100>; rel="next", '
        '</ratings?limit=100&offset=100>; rel="last"'
    )
    assert len(client.get("/ratings?limit=1000").json()) == 101


def test_next_pages_contain_every_rating_once(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    for movie_id, user_id in ((1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (1, 6), (2, 7)):
        rate(client, movie_id, 3, user_id)
    client.delete("/movies/1/ratings/3")

    for filters, expected in {"": [1, 2, 4, 5, 6, 7], "movie_id=1&": [1, 2, 6]}.items():
        for limit in (1, 2, 3, 6, 7):
            pages = [client.get(f"/ratings?{filters}limit={limit}")]
            while following := pages[-1].links.get("next"):
                assert following["url"].startswith(f"/ratings?{filters}limit={limit}&after=")
                pages.append(client.get(following["url"]))

            assert [rating["id"] for page in pages for rating in page.json()] == expected
            assert len(pages) == -(-len(expected) // limit)
            assert {page.headers["X-Total-Count"] for page in pages} == {str(len(expected))}


def test_page_after_an_id_links_to_the_others(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (3,) * 5))

    response = client.get("/ratings?after=1&movie_id=1&limit=2")

    assert [rating["id"] for rating in response.json()] == [2, 3]
    assert response.headers["X-Total-Count"] == "5"
    assert response.headers["Link"] == (
        '</ratings?movie_id=1&limit=2&offset=0>; rel="first", '
        '</ratings?movie_id=1&limit=2&after=3>; rel="next", '
        '</ratings?movie_id=1&limit=2&offset=4>; rel="last"'
    )


# Ratings of a user


def test_rating_of_a_user_is_found_by_movie_and_user(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (1,)), RONIN)
    rate(client, HEAT_ID, 2, user_id=8)
    rate(client, HEAT_ID, 4, user_id=7)
    rate(client, RONIN_ID, 3, user_id=7)

    response = client.get(f"/movies/{HEAT_ID}/ratings/7")

    assert response.status_code == 200
    assert response.json() == client.get("/ratings?movie_id=1&user_id=7").json()[0]
    assert response.json()["score"] == 4


# Withdrawing


def test_withdrawn_rating_is_deleted_and_no_longer_counts(
    client: TestClient, engine: Engine
) -> None:
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


# Scores


def test_scores_of_a_movie_are_counted_one_to_five(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT._replace(scores=(5, 5, 3, 1)), RONIN)

    rated, unrated = (
        client.get(f"/movies/{movie_id}/scores").json() for movie_id in (HEAT_ID, RONIN_ID)
    )

    assert [(row["score"], row["count"]) for row in rated] == [
        (1, 1),
        (2, 0),
        (3, 1),
        (4, 0),
        (5, 2),
    ]
    assert [row["count"] for row in unrated] == [0] * 5

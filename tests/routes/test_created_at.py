"""created_at in a batch: history may be sent, and never replaces what is newer."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.helpers import HEAT, rating_rows, store

RATING = {"movie_id": 1, "user_id": 7}
REFUSED: tuple[object, ...] = (
    *("1899-12-31T23:59:59Z", "2020-01-01T00:00:00", "2020-01-01", "2020-01-01 00:00:00Z"),
    *("2020-13-01T00:00:00Z", "2020-01-01T00:00:00+0000", "2020-01-01T24:30:00Z", "", "now"),
    *("2020-01-01T00:00:00Z" + "0" * 100, "0001-01-01T00:00:00+23:59", 1577836800, True, []),
)


@pytest.fixture
def client(client: TestClient, engine: Engine) -> TestClient:
    """Return a client of a catalogue of one movie."""
    store(engine, HEAT)
    return client


def batch(client: TestClient, *ratings: tuple[int, object]) -> int:
    """Store scores of one user for one movie, each with its time, and return the status."""
    body = [RATING | {"score": score, "created_at": time} for score, time in ratings]
    return client.post("/ratings/batch", json=body).status_code


def stored(client: TestClient) -> tuple[int, str]:
    """Return the user's score and its time."""
    rating = client.get("/movies/1/ratings/7").json()
    return rating["score"], rating["created_at"]


def test_time_is_stored_in_utc(client: TestClient) -> None:
    for sent, expected in {
        "1900-01-01T00:00:00Z": "1900-01-01T00:00:00Z",
        "2020-01-31T12:00:00+02:00": "2020-01-31T10:00:00Z",
        "2020-01-31T12:00:00.123456789Z": "2020-01-31T12:00:00.123456Z",
    }.items():
        assert (batch(client, (4, sent)), stored(client)) == (204, (4, expected))


def test_older_rating_never_replaces_a_newer_one(client: TestClient) -> None:
    new, old = "2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z"

    assert batch(client, (5, new)) == 204
    assert batch(client, (1, old)) == 204
    assert stored(client) == (5, new)
    assert batch(client, (4, new)) == 204
    assert stored(client) == (4, new)
    assert client.get("/movies/1").json()["average_rating"] == 4.0
    client.post("/ratings", json=RATING | {"score": 3})
    assert stored(client)[0] == 3
    assert batch(client, (2, new)) == 204
    assert stored(client)[0] == 3


def test_latest_rating_of_a_batch_stands(client: TestClient, engine: Engine) -> None:
    assert batch(client, (2, "2020-01-02T00:00:00Z"), (1, "2020-01-01T00:00:00Z")) == 204
    assert stored(client) == (2, "2020-01-02T00:00:00Z")
    assert batch(client, (5, None), (3, "2021-01-01T00:00:00Z")) == 204
    assert stored(client)[0] == 5
    assert len(rating_rows(engine)) == 1


def test_clock_that_is_a_minute_ahead_counts_as_now(client: TestClient) -> None:
    before = datetime.now(UTC)

    assert batch(client, (5, (before + timedelta(seconds=50)).isoformat())) == 204
    assert before <= datetime.fromisoformat(stored(client)[1]) <= datetime.now(UTC)
    assert batch(client, (1, (before + timedelta(seconds=600)).isoformat())) == 422
    assert stored(client)[0] == 5


def test_other_times_are_refused(client: TestClient, engine: Engine) -> None:
    for time in REFUSED:
        assert (time, batch(client, (5, time))) == (time, 422)
    assert rating_rows(engine) == []


def test_single_rating_refuses_a_time(client: TestClient, engine: Engine) -> None:
    body = RATING | {"score": 5, "created_at": "2020-01-01T00:00:00Z"}

    response = client.post("/ratings", json=body)

    assert [problem["loc"] for problem in response.json()["detail"]] == [["body", "created_at"]]
    assert rating_rows(engine) == []

"""Bodies: numbers as JSON writes them, unknown fields, and movies sent back as they were read."""

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.helpers import HEAT, everything, rating_rows, store

MOVIE = {"title": "Ronin", "year": 1998, "genre": "Action"}
RATING = {"movie_id": 1, "user_id": 7, "score": 5}


def places(response_json: dict[str, list[dict[str, object]]]) -> list[object]:
    """Return the places that an error names."""
    return [problem["loc"] for problem in response_json["detail"]]


def test_whole_floats_are_integers(client: TestClient, engine: Engine) -> None:
    created = client.post("/movies", json=MOVIE | {"year": 1998.0, "tmdb_id": 8195.0})
    one = client.post("/ratings", json={"movie_id": 1.0, "user_id": 7.0, "score": 5.0})
    many = client.post(
        "/ratings/batch",
        content=b'[{"movie_id": 1.0, "score": 4e0}]',
        headers={"Content-Type": "application/json"},
    )

    assert (created.status_code, one.status_code, many.status_code) == (201, 204, 204)
    assert [created.json()[name] for name in ("year", "tmdb_id")] == [1998, 8195]
    assert [(row["user_id"], row["score"]) for row in rating_rows(engine)] == [(7, 5), (None, 4)]


def test_number_with_a_fraction_or_in_a_url_is_refused(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    fraction = client.post("/ratings", json=RATING | {"score": 4.5})
    path = client.get("/movies/1.0")
    query = client.get("/ratings?user_id=7.0")

    assert [response.status_code for response in (fraction, path, query)] == [422] * 3
    assert rating_rows(engine) == []


def test_unknown_fields_are_named_and_nothing_is_stored(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    before = everything(engine)
    bodies: dict[str, dict[str, object]] = {
        "POST /movies": MOVIE,
        "PUT /movies/1": MOVIE,
        "PATCH /movies/1": {"genre": "Drama"},
        "POST /ratings": {**RATING},
    }

    for request, body in bodies.items():
        method, path = request.split()
        response = client.request(method, path, json=body | {"gener": "Drama", "titel": 1})
        assert response.status_code == 422
        assert places(response.json()) == [["body", "gener"], ["body", "titel"]]
    batch = client.post("/ratings/batch", json=[RATING, RATING | {"scoer": 1}])

    assert places(batch.json()) == [["body", 1, "scoer"]]
    assert everything(engine) == before


def test_thousands_of_unknown_fields_get_a_short_response(client: TestClient) -> None:
    response = client.post("/movies", json=MOVIE | {f"field{n}": 1 for n in range(3000)})

    assert response.status_code == 422
    assert len(response.json()["detail"]) == 100


def test_movie_as_read_can_be_sent_back(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    client.post("/ratings", json=RATING)
    read = client.get("/movies/1").json()

    for method in ("PUT", "PATCH"):
        assert client.request(method, "/movies/1", json=read).json() == read
    copy = client.post("/movies", json=read | {"title": "Copy"}).json()

    assert (copy["id"], copy["rating_count"]) == (2, 0)


def test_fields_that_the_service_computes_are_documented_as_read_only(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    read_only = {
        name: {field for field, schema in body["properties"].items() if schema.get("readOnly")}
        for name, body in schemas.items()
        if "additionalProperties" in body
    }

    of_a_movie = {"id", "average_rating", "rating_count"}
    assert read_only == {
        "MovieCreate": of_a_movie,
        "MovieUpdate": of_a_movie,
        "RatingCreate": {"id"},
        "PastRating": {"id"},
    }


def test_top_is_no_movie(client: TestClient) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        response = client.request(method, "/movies/top")
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert client.put("/movies/topmost", json=MOVIE).status_code == 422

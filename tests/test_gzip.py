"""Responses are compressed on request, and their ETags keep working."""

import gzip

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.compression import MIN_BYTES
from tests.helpers import HEAT, SAMPLES, Sample, store, with_and_without_cache, words
from tests.server import serving

# Its JSON is long enough to be compressed.
LONG = Sample(("🎬" * 299) + "!", 2001, "Comedy", (4, 3, 3))
ASKS_FOR_GZIP = (
    "identity;q=0.5, gzip;q=0.5",
    *words("gzip GZip * gzip,deflate,br br;q=1.0,gzip;q=0.001 identity;q=0.5,*"),
    "identity;q=0, gzip;q=1.000",
)
DOES_NOT = (
    *words("identity br x gzip;q=0 gzip;q=0.000,* *;q=0 deflate,gzip;q=0 gzip;q=0.5,identity"),
    *words("gzip;q=2 gzip;q=-1 gzip;level=9 gzip;q="),
    "",
)


def encoded_as(accept_encoding: str) -> dict[str, str]:
    """Return the headers of a request that accepts an encoding."""
    return {"Accept-Encoding": accept_encoding}


PLAIN, GZIP = encoded_as("identity"), encoded_as("gzip")


@with_and_without_cache
def test_page_is_compressed_on_request(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)
    plain = client.get("/movies", headers=PLAIN)
    # Several times in turn, so that the cache has answers of both forms.
    asked = [each for pair in zip(ASKS_FOR_GZIP, DOES_NOT, strict=False) for each in pair]

    answers = {
        form: client.get("/movies", headers=encoded_as(form))
        for form in [*asked, *ASKS_FOR_GZIP, *DOES_NOT]
    }

    encodings = {form: answer.headers.get("Content-Encoding") for form, answer in answers.items()}
    assert encodings == dict.fromkeys(ASKS_FOR_GZIP, "gzip") | dict.fromkeys(DOES_NOT)
    assert {answer.content for answer in answers.values()} == {plain.content}
    assert {answer.headers["Vary"] for answer in answers.values()} == {"Accept-Encoding, Origin"}
    assert len({answer.headers["ETag"] for answer in answers.values()}) == 2
    for answer in answers.values():
        is_compressed = "Content-Encoding" in answer.headers
        assert (int(answer.headers["Content-Length"]) < len(plain.content)) == is_compressed
        assert (answer.headers["ETag"] != plain.headers["ETag"]) == is_compressed
        assert answer.headers["X-Total-Count"] == str(len(SAMPLES))


@with_and_without_cache
def test_small_body_is_not_compressed(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    plain, asked = (client.get("/movies/1", headers=headers) for headers in (PLAIN, GZIP))

    assert len(asked.content) < MIN_BYTES
    assert "Content-Encoding" not in asked.headers
    assert asked.headers["ETag"] == plain.headers["ETag"]
    assert asked.headers["Vary"] == "Accept-Encoding, Origin"


def test_errors_and_writes_are_not_compressed(client: TestClient) -> None:
    created = client.post("/movies", json={"title": LONG.title, "year": 2001}, headers=GZIP)
    error = client.get("/movies?" + "&".join(f"x{n}=1" for n in range(20)), headers=GZIP)

    for answer, status in ((created, 201), (error, 422)):
        assert answer.status_code == status
        assert len(answer.content) > MIN_BYTES
        assert "Content-Encoding" not in answer.headers


@with_and_without_cache
def test_etag_of_either_form_is_304_in_either(client: TestClient, engine: Engine) -> None:
    store(engine, LONG)
    for own in (PLAIN, GZIP):
        full = client.get("/movies/1", headers=own)

        answers = [
            client.get("/movies/1", headers=headers | {"If-None-Match": full.headers["ETag"]})
            for headers in (PLAIN, GZIP)
        ]

        assert full.headers["ETag"].endswith('-gzip"') == (own == GZIP)
        assert [(answer.status_code, answer.content) for answer in answers] == [(304, b"")] * 2
        assert not any("Content-Encoding" in answer.headers for answer in answers)
        assert [answer.headers["ETag"].endswith('-gzip"') for answer in answers] == [False, True]


def test_etag_of_a_compressed_movie_allows_one_change(client: TestClient, engine: Engine) -> None:
    store(engine, LONG)
    for method in ("PATCH", "PUT", "DELETE"):
        condition = {"If-Match": client.get("/movies/1", headers=GZIP).headers["ETag"]}
        body = None if method == "DELETE" else {"title": LONG.title, "year": 1999}

        client.post("/ratings", json={"movie_id": 1, "score": 5})
        outdated = client.request(method, "/movies/1", json=body, headers=condition)
        condition = {"If-Match": client.get("/movies/1", headers=GZIP).headers["ETag"]}
        current = client.request(method, "/movies/1", json=body, headers=condition)

        assert outdated.status_code == 412
        assert current.is_success


@with_and_without_cache
def test_etag_names_the_bytes_of_a_compressed_response(app: FastAPI, engine: Engine) -> None:
    store(engine, *SAMPLES)
    with serving(app) as server, server.client() as client:
        answers = []
        for _ in range(2):
            with client.stream("GET", "/movies", headers=GZIP) as response:
                answers.append((response.headers["ETag"], b"".join(response.iter_raw())))
        head = client.head("/movies", headers=GZIP)
        plain = client.get("/movies", headers=PLAIN)

    assert answers[0] == answers[1]
    etag, body = answers[0]
    assert gzip.decompress(body) == plain.content
    assert head.content == b""
    assert (head.headers["ETag"], head.headers["Content-Encoding"]) == (etag, "gzip")
    assert int(head.headers["Content-Length"]) == len(body)

"""ETags: 304 for a matching one, 412 for a write with an outdated one, also if compressed."""

import gzip
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPICursor

from app.http.conditional import MIN_BYTES
from tests.helpers import HEAT, SAMPLES, Sample, everything, store, with_and_without_cache, words
from tests.operations import READING, store_what_examples_name
from tests.server import DEADLINE_SECONDS, serving

CACHEABLE = [
    operation
    for operation in READING
    if "health" not in operation.description["tags"]
    and "application/json" in operation.description["responses"]["200"]["content"]
]
# JSON libraries write its average with different numbers of digits.
A_THIRD = Sample("Amélie (Le fabuleux destin) 🎬", 2001, "Comedy", (4, 3, 3))
CHANGES: list[tuple[str, dict[str, object] | None]] = [
    ("PUT", {"title": "Ronin", "year": 1998}),
    ("PATCH", {"year": 1996}),
    ("PATCH", {}),
    ("DELETE", None),
]
# Forms of an ETag that match it: as changed by proxies that compress, and in lists. Each line is a
# separate header.
MATCHING = (
    *words("""
    "{}" W/"{}" "{}-gzip" W/"{}-gzip" "{}--gzip" "{};gzip" "{};;;" "{}:br" *
    "other",W/"{}-br","more"
    """),
    *(' "{}" ', '"other", "{}"', '"other"\n"{}"', '"other"\nW/"more", "{}-gzip"'),
)
OTHER = (
    *words(', {} "{} "{}"x x"{}" "x{}" "{}0" w/"{}" "-gzip" "other" W/"other","more" "*"'),
    *("", '"other"\n"more"'),
)
# Its JSON exceeds MIN_BYTES.
LONG = Sample(("🎬" * 299) + "!", 2001, "Comedy", (4, 3, 3))
ASKS_FOR_GZIP = (
    *words("gzip GZip * gzip,deflate,br br;q=1.0,gzip;q=0.001 identity;q=0.5,*"),
    "identity;q=0.5, gzip;q=0.5",
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


def statuses(client: TestClient, template: str, etag: str) -> tuple[int, int]:
    """Return the statuses of a read and a write of movie 1 on a condition made of its ETag."""
    values = template.format(etag.strip('"')).split("\n")
    read = client.get("/movies/1", headers=[("If-None-Match", value) for value in values])
    write = client.patch("/movies/1", json={}, headers=[("If-Match", value) for value in values])
    return read.status_code, write.status_code


# Reads


@with_and_without_cache
def test_every_read_is_304_for_a_matching_etag(client: TestClient, engine: Engine) -> None:
    store_what_examples_name(engine)
    own = {"X-Trace-Id": "mine"}
    for operation in CACHEABLE:
        full = client.get(operation.url, headers=own)
        headers = own | {"If-None-Match": full.headers["ETag"]}
        unchanged = client.get(operation.url, headers=headers)
        head = client.head(operation.url, headers=headers)

        assert full.status_code == 200
        assert re.fullmatch('"[0-9a-f]{32}"', full.headers["ETag"]), operation
        assert full.headers["Cache-Control"] == "no-cache, max-age=0", operation
        assert (unchanged.status_code, unchanged.content) == (304, b""), operation
        assert dict(unchanged.headers) == {
            name: value for name, value in full.headers.items() if not name.startswith("content-")
        }
        assert (head.status_code, head.content) == (304, b"")
        assert head.headers == unchanged.headers


@with_and_without_cache
def test_etag_changed_by_a_proxy_matches_and_others_do_not(
    client: TestClient, engine: Engine
) -> None:
    store(engine, A_THIRD)
    etag = client.get("/movies/1").headers["ETag"]

    answers = {template: statuses(client, template, etag) for template in (*MATCHING, *OTHER)}

    assert answers == dict.fromkeys(MATCHING, (304, 200)) | dict.fromkeys(OTHER, (200, 412)) | {
        # A client that has lost its ETag must not overwrite a change.
        "": (200, 422)
    }


@with_and_without_cache
def test_etag_changes_only_when_the_movie_changes(client: TestClient, engine: Engine) -> None:
    store(engine, A_THIRD, Sample("Heat", 1995, "Crime"))
    before = [client.get(f"/movies/{movie_id}").headers["ETag"] for movie_id in (1, 2)]

    client.post("/ratings", json={"movie_id": 1, "score": 5})
    after = [client.get(f"/movies/{movie_id}").headers["ETag"] for movie_id in (1, 2)]

    assert after[0] != before[0]
    assert after[1] == before[1]


def test_pages_with_the_same_body_and_another_total_have_different_etags(
    client: TestClient, engine: Engine
) -> None:
    store(engine, Sample("Zodiac", 2007, "Crime"))
    first = client.get("/movies?q=zodiac&limit=1")
    store(engine, Sample("Zodiac II", 2017, "Crime"))

    second = client.get("/movies?q=zodiac&limit=1")

    assert second.content == first.content
    assert (first.headers["X-Total-Count"], second.headers["X-Total-Count"]) == ("1", "2")
    assert second.headers["ETag"] != first.headers["ETag"]


@with_and_without_cache
def test_error_has_no_etag_and_no_condition_matches_it(client: TestClient) -> None:
    for path, status in (("/movies/99", 404), ("/movies?limit=0", 422)):
        response = client.get(path, headers={"If-None-Match": "*"})

        assert response.status_code == status
        assert "ETag" not in response.headers
        assert "Cache-Control" not in response.headers


def test_connection_stays_usable_after_a_304(app: FastAPI) -> None:
    with serving(app) as server, server.client() as client:
        full = client.get("/movies")
        unchanged = client.get("/movies", headers={"If-None-Match": full.headers["ETag"]})
        again = client.get("/movies")

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert "content-length" not in unchanged.headers
    assert "transfer-encoding" not in unchanged.headers
    assert again.content == full.content


# Writes


def test_etag_of_every_movie_is_accepted_by_writes(client: TestClient, engine: Engine) -> None:
    ids = store(engine, A_THIRD, *SAMPLES)
    etags = {movie_id: client.get(f"/movies/{movie_id}").headers["ETag"] for movie_id in ids}

    answers = {
        movie_id: client.patch(
            f"/movies/{movie_id}", json={}, headers={"If-Match": etag}
        ).status_code
        for movie_id, etag in etags.items()
    }

    assert answers == dict.fromkeys(ids, 200)


def test_write_succeeds_with_the_current_etag_and_is_412_with_an_older_one(
    client: TestClient, engine: Engine
) -> None:
    store(engine, A_THIRD)
    older = client.get("/movies/1").headers["ETag"]
    client.patch("/movies/1", json={"genre": "Romance"})

    for method, body in CHANGES:
        before = everything(engine)
        refused = client.request(method, "/movies/1", json=body, headers={"If-Match": older})

        assert refused.status_code == 412
        assert refused.json() == {"detail": "The movie has changed since it was read: get it again"}
        assert everything(engine) == before

        current = {"If-Match": client.get("/movies/1").headers["ETag"]}
        response = client.request(method, "/movies/1", json=body, headers=current)

        assert response.is_success
        assert (everything(engine) != before) == (body != {})


def test_condition_on_an_unknown_movie_is_404(client: TestClient) -> None:
    answers = [
        client.request(method, "/movies/99", json=body, headers={"If-Match": condition})
        for method, body in CHANGES
        for condition in ("*", '"other"')
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert {answer.text for answer in answers} == {'{"detail":"Movie not found"}'}


@contextmanager
def waiting_for_the_lock(engine: Engine) -> Iterator[threading.Event]:
    """Yield an event that is set when a write is about to take its lock."""
    waits = threading.Event()

    def note(_connection: Connection, _cursor: DBAPICursor, statement: str, *_rest: object) -> None:
        if statement == "BEGIN IMMEDIATE" or "FOR NO KEY UPDATE" in statement:
            waits.set()

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield waits
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize(("method", "body"), CHANGES)
def test_write_is_412_if_the_movie_changes_while_it_waits_for_the_lock(
    app: FastAPI,
    client: TestClient,
    engine: Engine,
    method: str,
    body: dict[str, object] | None,
) -> None:
    store(engine, A_THIRD)
    headers = {"If-Match": client.get("/movies/1").headers["ETag"]}

    with (
        waiting_for_the_lock(app.state.service.database.engine) as waits,
        ThreadPoolExecutor(1) as thread,
        engine.begin() as other,
    ):
        other.execute(text("UPDATE movie SET genre = 'Romance' WHERE id = 1"))
        write = thread.submit(client.request, method, "/movies/1", json=body, headers=headers)
        assert waits.wait(DEADLINE_SECONDS)
        other.commit()
        response = write.result(DEADLINE_SECONDS)

    assert response.status_code == 412
    movie = client.get("/movies/1").json()
    assert (movie["title"], movie["year"], movie["genre"]) == (A_THIRD.title, 2001, "Romance")


# Compression


@with_and_without_cache
def test_page_is_compressed_on_request(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)
    plain = client.get("/movies", headers=PLAIN)
    # Alternating, so the cache has responses of both forms.
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
def test_etag_of_the_plain_or_compressed_form_matches_both(
    client: TestClient, engine: Engine
) -> None:
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


def test_etag_of_a_compressed_movie_is_accepted_until_the_movie_changes(
    client: TestClient, engine: Engine
) -> None:
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
def test_compressed_response_has_the_same_bytes_for_the_same_etag(
    app: FastAPI, engine: Engine
) -> None:
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

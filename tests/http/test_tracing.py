"""Trace ids and events, which no caller can forge."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NamedTuple

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.logs import log_event
from app.main import create_app
from tests.helpers import listed
from tests.logs import Event, events

MOVIE = {"title": "Heat", "year": 1995, "genre": "Crime"}
RATING = {"movie_id": 1, "user_id": 42, "score": 5}
NEW_TRACE_ID = re.compile(r"[0-9a-f]{32}")

JSON = {"Content-Type": "application/json"}
ORIGIN, OTHER_ORIGIN = {"Origin": "http://localhost:3000"}, {"Origin": "https://evil.example"}
PREFLIGHT = {"Access-Control-Request-Method": "POST"}
# (status, request, options) of every kind of response.
RESPONSES: list[tuple[int, str, dict[str, Any]]] = [
    (200, "GET /movies", {}),
    (200, "GET /health", {}),
    (200, "GET /ready", {}),
    (200, "GET /docs", {}),
    (200, "GET /openapi.json", {}),
    (200, "GET /static-offline-docs/swagger-ui-bundle.js", {}),
    (201, "POST /movies", {"json": MOVIE | {"title": "Other"}}),
    (204, "POST /ratings", {"json": {"movie_id": 1, "score": 5}}),
    (204, "OPTIONS /movies", {}),
    (304, "GET /movies", {"headers": {"If-None-Match": "*"}}),
    (307, "GET /movies/", {}),
    (400, "POST /movies", {"content": b'"\xff"', "headers": JSON}),
    (404, "GET /movies/999", {}),
    (404, "GET /nowhere", {}),
    (404, "GET /static-offline-docs/nothing.js", {}),
    (405, "DELETE /movies", {}),
    (409, "POST /movies", {"json": MOVIE}),
    (413, "POST /movies", {"content": b" " * 100_000}),
    (415, "POST /movies", {"content": b"{}", "headers": JSON | {"Content-Encoding": "gzip"}}),
    (422, "POST /movies", {"content": b"{", "headers": JSON}),
    (422, "GET /movies?limit=0", {}),
    (200, "OPTIONS /movies", {"headers": ORIGIN | PREFLIGHT}),
    (400, "OPTIONS /movies", {"headers": OTHER_ORIGIN | PREFLIGHT}),
    (500, "GET /broken", {}),
]
VALID_TRACE_IDS = ["demo-1234", "a", "Z" * 64, "0.1_2-3", "9f2fadd2-bac2-469c-8813-252b91834bc4"]
INVALID_TRACE_IDS = [
    *(b"", b" ", b"Z" * 65, b"two words", b"a,b", b"a/b", b'a"b', b"caf\xe9", b"caf\xc3\xa9"),
    *(b"a\tb", b"x status=200", b"x\r\nX-Forged: yes", b"a\x00b", b"a\n"),
    b"x\n2026-01-01T00:00:00.000Z INFO forged.event trace_id=x",
]
# Paths after a server has decoded them.
HOSTILE_TEXTS = [
    "\n2026-01-01T00:00:00.000Z INFO forged.event movie_id=1",
    "\r\n2026-01-01T00:00:00.000Z INFO forged.event movie_id=1",
    "\u20282026-01-01T00:00:00.000Z INFO forged.event movie_id=1",
    "\x852026-01-01T00:00:00.000Z INFO forged.event movie_id=1",
    "\x0b\x0c\x1c\x1d\x1e\u2029",
    " status=200 trace_id=forged",
    '" status=200 trace_id="forged',
    '\\" status=200 trace_id=\\"forged',
    '","status":200,"trace_id":"forged',
    "\x1b[2J\x1b[31mforged",
    "\x00\x07\x08\x7f",
    "%s %d %(levelname)s {event}",
    "日本語 \N{CLAPPER BOARD}",
    "=",
]


@contextmanager
def serving(database_url: str, **settings: object) -> Iterator[TestClient]:
    """Yield a client of a service with one movie and a route that raises an error."""
    given = {"database_url": database_url, "auto_setup": False, **settings}
    app = create_app(Settings.model_validate(given))

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a secret")

    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        client.post("/movies", json=MOVIE).raise_for_status()
        yield client


class Service(NamedTuple):
    """A client of the service, and a function that returns the events since its last call."""

    client: TestClient
    events: Callable[[], list[Event]]


Serve = Callable[[], AbstractContextManager[Service]]


@pytest.fixture(params=["text", "json"])
def serve(
    request: pytest.FixtureRequest, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> Serve:
    """Return a context manager that serves with each log format; the log starts empty.

    It is not entered here, because pytest captures the output of fixtures separately.
    """
    log_format: str = request.param

    @contextmanager
    def serve() -> Iterator[Service]:
        with serving(sqlite_url, log_format=log_format) as client:
            capsys.readouterr()
            yield Service(client, lambda: events(capsys.readouterr().err, log_format))

    return serve


def strip(event: Event) -> Event:
    """Return an event without the fields that differ each time, its values as text."""
    ignored = ("time", "logger", "level", "duration_ms", "client")
    return {name: str(value) for name, value in event.items() if name not in ignored}


def answers(client: TestClient, headers: dict[str, str]) -> Iterator[tuple[str, httpx2.Response]]:
    """Yield the response to each request of the table, after a check of its status."""
    for status, line, options in RESPONSES:
        all_headers = {**options.get("headers", {}), **headers}
        response = client.request(*line.split(), **{**options, "headers": all_headers})
        assert (line, response.status_code) == (line, status)
        yield line, response


def test_every_response_has_a_trace_id_and_forbids_sniffing(sqlite_url: str) -> None:
    made = []
    with serving(sqlite_url) as client:
        for line, response in answers(client, {}):
            (trace_id,) = response.headers.get_list("X-Trace-Id")
            assert NEW_TRACE_ID.fullmatch(trace_id), line
            assert response.headers.get_list("X-Content-Type-Options") == ["nosniff"], line
            made.append(trace_id)

    assert len(set(made)) == len(RESPONSES)


def test_every_response_has_the_callers_trace_id(sqlite_url: str) -> None:
    with serving(sqlite_url) as client:
        for line, response in answers(client, {"X-Trace-Id": "demo-1234"}):
            assert response.headers.get_list("X-Trace-Id") == ["demo-1234"], line


def test_unexpected_errors_leak_no_internals(sqlite_url: str) -> None:
    with serving(sqlite_url) as client:
        response = client.get("/broken")

    assert response.json() == {"detail": "Internal server error"}


def test_valid_trace_id_is_kept_and_an_invalid_one_replaced(serve: Serve) -> None:
    with serve() as service:
        for sent in (*(text.encode() for text in VALID_TRACE_IDS), *INVALID_TRACE_IDS):
            response = service.client.get("/movies", headers={b"X-Trace-Id": sent})

            trace_id = response.headers["X-Trace-Id"]
            is_new = NEW_TRACE_ID.fullmatch(trace_id) is not None
            assert (sent, is_new) == (sent, sent in INVALID_TRACE_IDS)
            assert is_new or trace_id.encode() == sent
            assert "X-Forged" not in response.headers
            (event,) = service.events()
            assert (event["event"], event["trace_id"]) == ("http.request", trace_id)


# (request, body, the event that it logs), in order.
WRITES: list[tuple[str, Any, str]] = [
    ("POST /movies", MOVIE | {"title": "Ronin"}, "movie.created movie_id=2"),
    ("PUT /movies/1", MOVIE | {"year": 1996}, "movie.updated movie_id=1"),
    ("PATCH /movies/1", {"year": 1997}, "movie.updated movie_id=1"),
    ("POST /ratings", RATING, "rating.added movie_id=1 user_id=42 score=5"),
    ("POST /ratings", RATING | {"score": 4}, "rating.added movie_id=1 user_id=42 score=4"),
    ("POST /ratings", RATING | {"user_id": None}, "rating.added movie_id=1 score=5"),
    ("DELETE /movies/1/ratings/42", None, "rating.removed movie_id=1 user_id=42"),
    ("DELETE /movies/2", None, "movie.deleted movie_id=2"),
    # Writes that fail
    ("POST /movies", MOVIE, ""),
    ("POST /movies", {"title": ""}, ""),
    ("PUT /movies/999", MOVIE, ""),
    ("PATCH /movies/999", {"year": 1996}, ""),
    ("DELETE /movies/999", None, ""),
    ("POST /ratings", RATING | {"movie_id": 999}, ""),
    ("POST /ratings", RATING | {"score": 6}, ""),
    ("DELETE /movies/1/ratings/42", None, ""),
]


def test_stored_write_logs_one_event_with_its_fields(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    about_requests = {"http.request", "request.rejected"}
    failures = []
    with serving(sqlite_url) as client:
        for number, (line, body, expected) in enumerate(WRITES):
            capsys.readouterr()
            client.request(*line.split(), json=body, headers={"X-Trace-Id": f"demo-{number}"})

            logged = [strip(event) for event in events(capsys.readouterr().err, "text")]
            name, *fields = f"{expected} trace_id=demo-{number}".split()
            event = {"event": name, **dict(field.split("=") for field in fields)}
            found = [event for event in logged if event["event"] not in about_requests]
            if found != ([event] if expected else []):
                failures.append((line, body, found))

    assert not failures, listed(failures)


def test_database_error_logs_the_trace_id(serve: Serve, sqlite_url: str) -> None:
    with (
        serve() as service,
        closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection,
    ):
        connection.execute("ALTER TABLE movie RENAME TO hidden")

        service.client.get("/movies", headers={"X-Trace-Id": "demo-1"})

        error, access = service.events()
    assert (error["event"], error["level"]) == ("database.error", "WARNING")
    assert error["code"] == "SQLITE_ERROR"
    assert error["reason"] == "no such table: movie"
    assert error["trace_id"] == access["trace_id"] == "demo-1"


def test_every_request_logs_one_access_line(serve: Serve) -> None:
    with serve() as service:
        for (status, _, _), (line, response) in zip(
            RESPONSES, answers(service.client, {}), strict=True
        ):
            method, target = line.split()
            path, _, query = target.partition("?")

            logged = service.events()

            (access,) = [event for event in logged if event["event"] == "http.request"]
            assert strip(access) == {
                "event": "http.request",
                "method": method,
                "path": path,
                **({"query": query} if query else {}),
                "status": str(status),
                "trace_id": response.headers["X-Trace-Id"],
            }
            assert float(access["duration_ms"]) >= 0
            assert access["client"] == "testclient"


def test_rejected_preflight_logs_its_origin(serve: Serve) -> None:
    with serve() as service:
        for origin in ("http://192.168.1.5:5173", 'http://a status=200 b="c'):
            headers = PREFLIGHT | {"Origin": origin, "X-Trace-Id": "demo"}
            service.client.options("/movies", headers=headers)

            rejected, access = service.events()

            assert rejected["level"] == "WARNING"
            assert strip(rejected) == {
                "event": "cors.rejected",
                "origin": origin,
                "reason": "Disallowed CORS origin",
                "trace_id": "demo",
            }
            assert (access["event"], str(access["status"])) == ("http.request", "400")


REJECTED: list[tuple[str, dict[str, Any], str]] = [
    ("GET /movies?year_min=secret&limit=0", {}, "query.limit,query.year_min"),
    ("GET /movies?gener=secret", {}, "query.gener"),
    ("GET /movies?limit=7&limit=8", {}, "query.limit"),
    ("PUT /movies/secret", {"json": {"title": "Heat"}}, "body.year,path.movie_id"),
    ("POST /movies", {"json": {"title": ["secret"], "year": 0}}, "body.title,body.year"),
    ("POST /movies", {"content": b"secret"}, "header.content-type"),
    ("POST /movies", {}, "body"),
    ("POST /movies", {"content": b"secret", "headers": JSON}, "body.0"),
]


def test_422_logs_the_names_of_the_fields_without_values(serve: Serve) -> None:
    with serve() as service:
        for line, options, fields in REJECTED:
            response = service.client.request(*line.split(), **options)

            rejected, access = service.events()

            assert response.status_code == 422
            assert ",".join(sorted(rejected.pop("fields").split(","))) == fields
            assert strip(rejected) == {"event": "request.rejected", "trace_id": access["trace_id"]}
            assert "secret" not in str(rejected)
            assert (access["event"], str(access["status"])) == ("http.request", "422")


def test_names_of_fields_in_the_log_are_bounded(serve: Serve) -> None:
    with serve() as service:
        service.client.get(f"/movies?{'x' * 5000}=1")
        service.client.get("/movies", params={f"unknown{number}": "1" for number in range(500)})

        logged = [event for event in service.events() if event["event"] == "request.rejected"]

    assert [len(event["fields"]) for event in logged] == [200, 200]
    assert logged[1]["fields"].startswith("query.unknown0,query.unknown1,")


def test_cached_read_has_its_own_trace_id_and_access_line(serve: Serve) -> None:
    sent = [f"demo-{number}" for number in range(3)]
    with serve() as service:
        given = [
            service.client.get("/movies?limit=1", headers=headers).headers["X-Trace-Id"]
            for headers in [*({"X-Trace-Id": trace_id} for trace_id in sent), {}, {}]
        ]
        logged = service.events()

    assert (given[:3], len(set(given))) == (sent, 5)
    assert [(event["event"], event["trace_id"]) for event in logged] == [
        ("http.request", trace_id) for trace_id in given
    ]


def test_path_and_query_cannot_forge_a_line_or_a_field(serve: Serve) -> None:
    with serve() as service:
        for hostile in HOSTILE_TEXTS:
            path = f"/movies/{hostile}"
            encoded = "".join(f"%{byte:02X}" if byte != 0x2F else "/" for byte in path.encode())
            of_path = service.client.get(encoded)
            of_query = service.client.get("/movies", params={hostile: hostile})

            logged = service.events()
            by_path, by_query = (event for event in logged if event["event"] == "http.request")

            assert by_path["path"] == path
            assert by_path["trace_id"] == of_path.headers["X-Trace-Id"]
            assert by_query["path"] == "/movies"
            assert by_query["trace_id"] == of_query.headers["X-Trace-Id"]
            assert {str(event["status"]) for event in (by_path, by_query)} <= {"404", "422"}
            assert logged[-2]["event"] == "request.rejected"
            assert logged[-2]["fields"] == f"query.{hostile}"


def test_fields_and_titles_cannot_forge_a_line_or_a_field(serve: Serve) -> None:
    with serve() as service:
        for hostile in HOSTILE_TEXTS:
            log_event("movie.created", movie_id=hostile, count=1)

            (event,) = service.events()
            assert strip(event) == {"event": "movie.created", "movie_id": hostile, "count": "1"}

            title = f"x {hostile}"
            service.client.post("/movies", json={"title": title, "year": 2000, "genre": title})

            names = [event["event"] for event in service.events()]
            assert names[-1] == "http.request"
            # Some of the titles are the same once they are normalized.
            assert names[:-1] in (["movie.created"], ["request.rejected"], [])

"""Caching: a client may keep a response, and validates it before each use."""

import asyncio
import gzip
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.config import Settings
from app.main import create_app
from tests.helpers import with_and_without_cache
from tests.operations import DOCUMENT, HAVING_ETAG, STREAMS, store_what_examples_name
from tests.server import serving

VALIDATED = "no-cache, max-age=0"
FILES = ("/", "/static/main.js", "/static/style.css", "/static/icon.svg", "/openapi.json")
PLAIN, GZIP = {"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip"}


@with_and_without_cache
def test_read_is_validated_before_each_use(client: TestClient, engine: Engine) -> None:
    store_what_examples_name(engine)
    urls = [*(operation.url for operation in HAVING_ETAG), *FILES]
    for url in urls:
        # The second response of a form comes from the cache.
        answers = [client.get(url, headers=form) for form in (PLAIN, PLAIN, GZIP, GZIP)]
        unchanged = client.get(url, headers={"If-None-Match": answers[0].headers["ETag"]})
        head = client.head(url)

        assert [answer.status_code for answer in answers] == [200] * 4, url
        assert (unchanged.status_code, head.status_code) == (304, 200), url
        for answer in (*answers, unchanged, head):
            assert answer.headers.get_list("Cache-Control") == [VALIDATED], url
            assert answer.headers["ETag"], url


def test_file_is_downloaded_anew_each_time(client: TestClient, engine: Engine) -> None:
    store_what_examples_name(engine)
    assert STREAMS
    for operation in STREAMS:
        for answer in (client.get(operation.url), client.head(operation.url)):
            assert answer.headers.get_list("Cache-Control") == ["no-cache"], operation
            assert "ETag" not in answer.headers


def test_page_for_an_unknown_path_is_validated(client: TestClient) -> None:
    answer = client.get("/nowhere", headers={"Accept": "text/html"})

    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, VALIDATED)


def test_document_says_how_responses_are_cached() -> None:
    header = DOCUMENT["components"]["headers"]["Cache-Control"]

    assert header["schema"]["const"] == VALIDATED
    for operation in STREAMS:
        [documented] = [
            value
            for name, value in operation.description["responses"]["200"]["headers"].items()
            if name == "Cache-Control"
        ]
        assert documented["schema"]["const"] == "no-cache"


def test_openapi_document_is_compressed_and_has_an_etag(app: FastAPI) -> None:
    with serving(app) as server, server.client() as client:
        plain = client.get("/openapi.json", headers=PLAIN)
        with client.stream("GET", "/openapi.json", headers=GZIP) as response:
            etag, body = response.headers["ETag"], b"".join(response.iter_raw())
        unchanged = client.get("/openapi.json", headers=GZIP | {"If-None-Match": etag})

    assert plain.json() == DOCUMENT
    assert plain.headers["Content-Type"] == "application/json"
    assert re.fullmatch('"[0-9a-f]{32}"', plain.headers["ETag"])
    assert gzip.decompress(body) == plain.content
    assert len(body) < len(plain.content) / 4
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_openapi_document_is_built_once_and_outside_the_event_loop(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building it on the event loop would delay a hundred reads."""
    app = create_app(Settings(database_url=sqlite_url))
    running: list[bool] = []
    build = app.openapi

    def note() -> dict[str, object]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            running.append(False)
        else:
            running.append(True)
        return build()

    monkeypatch.setattr(app, "openapi", note)
    with TestClient(app) as client, ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(client.get, ["/openapi.json"] * 8)]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["ETag"] for answer in answers}) == 1
    assert running == [False] * 8


def test_openapi_document_names_each_root_path_in_turn(app: FastAPI) -> None:
    for prefix in ("/a", "", "/b", "/a"):
        client = TestClient(app, root_path=prefix)

        servers = client.get(f"{prefix}/openapi.json").json()["servers"]

        assert servers[0]["url"] == (prefix or "/")


def test_openapi_document_has_routes_that_are_added_later(sqlite_url: str) -> None:
    app = create_app(Settings(database_url=sqlite_url))
    client = TestClient(app)
    before = client.get("/openapi.json")
    app.add_api_route("/later", lambda: None)

    after = client.get("/openapi.json", headers={"If-None-Match": before.headers["ETag"]})

    assert after.status_code == 200
    assert "/later" in after.json()["paths"]

"""No answer of any kind leaves a browser to guess its type, nor goes without a trace id."""

from typing import NamedTuple

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine

from app.config import Settings
from tests.operations import store_what_examples_name

JSON = {"Content-Type": "application/json"}
KEY = JSON | {"X-API-Key": "key"}
ORIGIN = {"Origin": "http://localhost:3000"}
MOVIE = b'{"title": "Arrival", "year": 2016}'


class Call(NamedTuple):
    """A request, and the status of its answer."""

    status: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


CALLS = [
    Call(200, "GET", "/health", {}),
    Call(200, "GET", "/movies", {}),
    Call(201, "POST", "/movies", KEY, MOVIE),
    Call(204, "POST", "/ratings", KEY, b'{"movie_id": 1, "score": 5}'),
    Call(304, "GET", "/movies", {"If-None-Match": "*"}),
    Call(307, "GET", "/movies/", {}),
    Call(400, "POST", "/movies", KEY, b'"\xff"'),
    Call(401, "POST", "/movies", JSON, MOVIE),
    Call(404, "GET", "/movies/99", {}),
    Call(404, "GET", "/nowhere", {}),
    Call(405, "DELETE", "/movies", {}),
    Call(409, "POST", "/movies", KEY, b'{"title": "Inception", "year": 2016}'),
    Call(413, "POST", "/movies", KEY, b" " * 65_537),
    Call(422, "GET", "/movies?limit=0", {}),
    Call(422, "POST", "/movies", KEY, b"not JSON"),
    Call(500, "GET", "/broken", {}),
    Call(200, "GET", "/docs", {}),
    Call(200, "GET", "/openapi.json", {}),
    Call(200, "GET", "/static-offline-docs/swagger-ui-bundle.js", {}),
    Call(404, "GET", "/static-offline-docs/nothing.js", {}),
    Call(200, "OPTIONS", "/movies", ORIGIN | {"Access-Control-Request-Method": "POST"}),
    Call(
        400,
        "OPTIONS",
        "/movies",
        {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"},
    ),
]


@pytest.fixture
def settings(sqlite_url: str) -> Settings:
    """Settings with an API key, on the engine that has the cache too."""
    return Settings(database_url=sqlite_url, auto_setup=False, api_key=SecretStr("key"))


@pytest.fixture
def engine(app: FastAPI) -> Engine:
    """The application's engine."""
    engine: Engine = app.state.engine
    return engine


def test_every_kind_of_answer_says_that_its_type_is_not_to_be_guessed(
    app: FastAPI, client: TestClient, engine: Engine
) -> None:
    store_what_examples_name(engine)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("on purpose")

    answers = [
        client.request(
            call.method, call.path, content=call.body, headers=call.headers, follow_redirects=False
        )
        for call in CALLS
    ]

    assert [answer.status_code for answer in answers] == [call.status for call in CALLS]
    for call, answer in zip(CALLS, answers, strict=True):
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"], call
        assert len(answer.headers.get_list("X-Trace-Id")) == 1, call

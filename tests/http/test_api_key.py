"""With MOVIE_API_KEY set, writes need the key and reads stay open."""

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine

from app.config import Settings
from app.main import create_app
from tests.helpers import everything, listed
from tests.logs import events
from tests.operations import (
    DOCUMENT,
    OPERATIONS,
    READING,
    WRITING,
    Operation,
    store_what_examples_name,
)
from tests.server import serving

KEY = "The-Right-Key-0815"


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings with an API key."""
    return Settings(database_url=database_url, auto_setup=False, api_key=SecretStr(KEY))


def send(client: TestClient, operation: Operation, key: bytes | None = None) -> tuple[int, object]:
    """Send an operation's example and return the status and the JSON of the response, if any."""
    headers = {} if key is None else {b"X-API-Key": key}
    response = client.request(
        operation.method, operation.complete_url, json=operation.body, headers=headers
    )
    assert response.headers["X-Trace-Id"]
    assert (response.headers.get("WWW-Authenticate") == "ApiKey") == (response.status_code == 401)
    is_json = response.headers.get("Content-Type") == "application/json"
    return response.status_code, response.json() if is_json else None


def test_document_lists_the_operations_that_write() -> None:
    assert [str(operation) for operation in WRITING] == [
        "POST /movies",
        "PUT /movies/{movie_id}",
        "PATCH /movies/{movie_id}",
        "DELETE /movies/{movie_id}",
        "DELETE /movies/{movie_id}/ratings/{user_id}",
        "POST /ratings",
        "DELETE /ratings",
        "POST /ratings/batch",
    ]


def test_write_without_the_key_is_401_and_stores_nothing(
    client: TestClient, engine: Engine
) -> None:
    store_what_examples_name(engine)
    before = everything(engine)
    key = KEY.encode()
    wrong = [None, b"", b"wrong", key[:-1], key + b"x", key.lower(), b"x" * 100_000]
    wrong += ["Schlüssel".encode(), b"\xff\xfe\x80"]
    refusal = {"detail": "Send the API key in the header X-API-Key"}

    failures = [
        (str(operation), sent, answer)
        for operation in WRITING
        for sent in wrong
        if (answer := send(client, operation, sent)) != (401, refusal)
    ]

    assert not failures, listed(failures)
    assert everything(engine) == before


def test_key_is_checked_before_the_path_the_method_and_the_body(client: TestClient) -> None:
    body = {"year": "soon"}
    requests = {
        ("POST", "/movies?typo=1"): 422,
        ("POST", "/nowhere"): 404,
        ("DELETE", "/movies"): 405,
        ("PUT", "/static-offline-docs/swagger-ui.css"): 405,
    }

    for (method, path), status in requests.items():
        without, with_key = (
            client.request(method, path, json=body, headers=headers)
            for headers in ({}, {"X-API-Key": KEY})
        )
        assert (path, without.status_code, with_key.status_code) == (path, 401, status)
    assert client.options("/movies").status_code == 204


@pytest.mark.parametrize("operation", WRITING, ids=str)
def test_write_with_the_key_is_stored(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    store_what_examples_name(engine)
    before = everything(engine)

    status, _ = send(client, operation, KEY.encode())

    assert status in {200, 201, 204}
    assert everything(engine) != before


def test_read_needs_no_key(client: TestClient, engine: Engine) -> None:
    store_what_examples_name(engine)

    for key in (None, b"wrong"):
        statuses = {str(operation): send(client, operation, key)[0] for operation in READING}
        assert statuses == {str(operation): 200 for operation in READING}
    assert [client.get(path).status_code for path in ("/docs", "/openapi.json")] == [200, 200]


def test_document_names_no_key_if_none_is_set() -> None:
    assert "securitySchemes" not in DOCUMENT["components"]
    assert DOCUMENT["security"] == []
    assert not any("security" in operation.description for operation in OPERATIONS)


def test_document_names_the_key_for_writes_only(sqlite_url: str) -> None:
    document = create_app(Settings(database_url=sqlite_url, api_key=SecretStr(KEY))).openapi()
    [(scheme, definition)] = document["components"]["securitySchemes"].items()

    assert definition.pop("description")
    assert definition == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    assert document["security"] == []
    for operation in OPERATIONS:
        needed: list[dict[str, list[str]]] = [{scheme: []}] if operation.writes else []
        described = document["paths"][operation.path][operation.method.lower()]
        assert described.get("security", []) == needed, str(operation)
        assert ("401" in operation.description["responses"]) == operation.writes, str(operation)


def test_key_is_never_logged(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(database_url=sqlite_url, api_key=SecretStr(KEY), log_level="DEBUG")
    with serving(create_app(settings)) as server, server.client() as client:
        body = {"title": "Arrival", "year": 2016}
        statuses = [
            client.post("/movies", json=body, headers={"X-API-Key": key}).status_code
            for key in (KEY, KEY, f"{KEY}-wrong")
        ]
    log = capsys.readouterr().err

    assert statuses == [201, 409, 401]
    assert "movie.created" in log
    assert KEY not in log


def test_key_in_a_query_is_not_logged(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {
        f"api_key={KEY}": "***",
        f"q=x&{KEY}": "***",
        f"q=%54{KEY[1:]}": "***",
        "X-API-Key=another&q=x": "X-API-Key=***&q=x",
        "token=a&Password=b": "token=***&Password=***",
        "apikey": "apikey=***",
        "q=key&genre=drama": "q=key&genre=drama",
    }
    with TestClient(create_app(settings)) as client:
        for query in expected:
            client.get(f"/health?{query}")

    log = capsys.readouterr().err
    requests = [event for event in events(log, "text") if event["event"] == "http.request"]
    assert [request["query"] for request in requests] == [*expected.values()]
    assert KEY not in log


def test_settings_do_not_show_the_key(settings: Settings) -> None:
    assert KEY not in f"{settings!r} {settings} {settings.model_dump_json()}"

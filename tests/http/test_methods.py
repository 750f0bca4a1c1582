"""HEAD for every GET, and Allow, which lists the methods of a path."""

import asyncio

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from httpx2 import Headers
from sqlalchemy import Engine
from starlette.types import Message, Scope

from app.config import Settings
from app.main import create_app
from app.routes.route_class import ServiceRoute
from tests.helpers import listed
from tests.logs import events
from tests.operations import OPERATIONS, READING, store_what_examples_name
from tests.server import serving

STATIC = "/static-offline-docs"
FILES = ["/docs", "/docs/oauth2-redirect", "/openapi.json", f"{STATIC}/swagger-ui.css"]
READS = [
    *(operation.url for operation in READING),
    "/movies?limit=1&offset=1",
    *FILES,
    # Errors
    "/movies/99",
    "/movies/x",
    "/movies?limit=0",
    "/nowhere",
    f"{STATIC}/nothing.css",
    "/movies/",
    "/ratings/batch",
]
# These are 422: "top" is read as an id.
TAKEN_FOR_AN_ID = {(method, "/movies/top") for method in ("PUT", "PATCH", "DELETE")}
METHOD_NOT_ALLOWED = '{"detail":"Method Not Allowed"}'
ORDER = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return only SQLite, which has the read cache; the engine does not matter otherwise."""
    return sqlite_url


def methods_of_paths() -> dict[str, list[str]]:
    """Return the documented methods of each path, by an example of the path."""
    methods: dict[str, set[str]] = {}
    for operation in OPERATIONS:
        methods.setdefault(operation.url, {"OPTIONS"}).add(operation.method)
    methods |= {path: {"GET", "OPTIONS"} for path in FILES}
    for allowed in methods.values():
        if "GET" in allowed:
            allowed.add("HEAD")
    return {path: sorted(allowed, key=ORDER.index) for path, allowed in methods.items()}


def own(headers: Headers) -> list[tuple[str, str]]:
    """Return the headers of a response except those that differ each time."""
    return [header for header in headers.multi_items() if header[0] not in {"x-trace-id", "date"}]


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_head_has_the_status_and_headers_of_get_and_no_body(
    app: FastAPI, engine: Engine, root_path: str
) -> None:
    store_what_examples_name(engine)
    with TestClient(app, root_path=root_path, follow_redirects=False) as client:
        heads = {path: client.head(f"{root_path}{path}") for path in READS}
        gets = {path: client.get(f"{root_path}{path}") for path in READS}

    for path in READS:
        head, get = heads[path], gets[path]
        assert head.content == b"", path
        assert (path, head.status_code, own(head.headers)) == (
            path,
            get.status_code,
            own(get.headers),
        )
    assert {get.status_code for get in gets.values()} == {200, 307, 404, 405, 422}
    assert "ETag" in heads["/movies"].headers
    assert "X-Total-Count" in heads["/movies"].headers
    assert int(heads["/movies"].headers["Content-Length"]) == len(gets["/movies"].content)


def test_head_drops_every_chunk_of_a_body(app: FastAPI) -> None:
    @app.get("/chunks")
    def chunks() -> StreamingResponse:
        return StreamingResponse(iter([b"x"] * 3), headers={"Content-Length": "3"})

    request: Scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "HEAD",
        "path": "/chunks",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.Future()  # the client stays connected

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(request, receive, send))

    start, *rest = sent
    assert (start["status"], dict(start["headers"])[b"content-length"]) == (200, b"3")
    assert rest == [{"type": "http.response.body"}]


def test_head_returns_304_for_a_matching_etag(client: TestClient) -> None:
    path = f"{STATIC}/swagger-ui.css"  # test_conditional.py sends HEAD to the operations
    etag = client.get(path).headers["ETag"]

    response = client.head(path, headers={"If-None-Match": etag})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == etag


def test_connection_stays_usable_after_a_head(app: FastAPI) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("on purpose")

    paths = ["/movies", "/nowhere", f"{STATIC}/swagger-ui-bundle.js", "/broken"]
    with serving(app) as server, server.client() as client:
        heads = [client.head(path) for path in paths]
        gets = [client.get(path) for path in paths]

    assert [head.status_code for head in heads] == [200, 404, 200, 500]
    for head, get in zip(heads, gets, strict=True):
        assert head.content == b""
        assert head.headers["Content-Length"] == str(len(get.content))


def test_access_log_distinguishes_head_from_get(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with TestClient(create_app(Settings(database_url=sqlite_url, auto_setup=False))) as client:
        capsys.readouterr()
        client.head("/movies")

        [access] = events(capsys.readouterr().err, "text")
    assert (access["method"], access["path"], access["status"]) == ("HEAD", "/movies", "200")


def test_document_lists_neither_head_nor_options(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    methods = {method for path in paths.values() for method in path}
    assert methods == {"get", "post", "put", "patch", "delete"}


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_options_and_405_list_every_method_of_a_path(app: FastAPI, root_path: str) -> None:
    expected = methods_of_paths()
    failures: list[object] = []
    with TestClient(app, root_path=root_path) as client:
        for path, allowed in expected.items():
            for method in ("OPTIONS", *ORDER[:-1], "TRACE", "QUERY", "NONSENSE"):
                if method != "OPTIONS" and (method in allowed or (method, path) in TAKEN_FOR_AN_ID):
                    continue
                answer = client.request(method, f"{root_path}{path}")
                status, text = (204, "") if method == "OPTIONS" else (405, METHOD_NOT_ALLOWED)
                found = answer.status_code, answer.headers["Allow"].split(", "), answer.text
                if found != (status, allowed, "" if method == "HEAD" else text):
                    failures.append((method, path, found))
                if method == "OPTIONS" and {"content-length", "content-type"} & {*answer.headers}:
                    failures.append((method, path, answer.headers))

    assert not failures, listed(failures)


def test_allow_includes_new_routes_automatically(app: FastAPI) -> None:
    for methods in (["POST"], ["GET"], ["DELETE"]):
        app.router.add_api_route(
            "/new/{number}", lambda: None, methods=methods, route_class_override=ServiceRoute
        )
    with TestClient(app) as client:
        response = client.options("/new/7")

    assert response.headers["Allow"] == "GET, HEAD, POST, DELETE, OPTIONS"


def test_options_of_an_unknown_path_is_404(client: TestClient) -> None:
    for path in ("/static", "/nowhere", "/movies/1/2"):
        response = client.options(path)

        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
        assert "Allow" not in response.headers


def test_preflight_of_a_browser_is_answered_by_cors(client: TestClient) -> None:
    origin = {"Origin": "http://localhost:3000"}

    preflight = client.options("/movies", headers=origin | {"Access-Control-Request-Method": "PUT"})
    plain = client.options("/movies", headers=origin)

    assert preflight.status_code == 200
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Allow" not in preflight.headers
    assert plain.status_code == 204
    assert plain.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    assert plain.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"

"""How the page's files are served, and the HTML page for unknown paths."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.config import PROJECT_ROOT
from tests.helpers import HEAT, movie_json, store

FOLDER = PROJECT_ROOT / "app" / "page"
FILES = {path.name: path for path in (FOLDER / "static").iterdir()}
# The Accept header of a browser that opens an address.
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
NOT_FOUND = {"detail": "Not Found"}
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
    "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return SQLite, because the read cache needs it."""
    return sqlite_url


@pytest.mark.parametrize("name", ["", *FILES])
def test_file_has_the_policy_and_an_etag(client: TestClient, name: str) -> None:
    path = f"/static/{name}" if name else "/"
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "": "text/html"}

    plain, compressed = (
        client.get(path, headers={"Accept-Encoding": coding}) for coding in ("identity", "gzip")
    )

    assert plain.content == (FILES[name] if name else FOLDER / "index.html").read_bytes()
    assert compressed.content == plain.content
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert plain.headers["ETag"] != compressed.headers["ETag"]
    for response in (plain, compressed):
        headers = response.headers
        assert headers["Content-Type"].startswith(kinds[name.rpartition(".")[2]])
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-cache, max-age=0"
        assert "Accept-Encoding" in headers["Vary"]
        current = client.get(path, headers={"If-None-Match": headers["ETag"]})
        assert (current.status_code, current.content) == (304, b"")


def test_page_is_read_only(client: TestClient) -> None:
    response = client.post("/")

    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/.env", "/static/..%2findex.html", "/index.html"]
)
def test_other_paths_are_404(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/json, text/plain, */*",
        "text/html, application/json",
    ],
)
def test_unknown_path_is_a_json_404_for_api_clients(client: TestClient, accept: str) -> None:
    response = client.get("/nowhere", headers={"Accept": accept})

    assert (response.status_code, response.json()) == (404, NOT_FOUND)
    assert "Accept" in response.headers["Vary"].split(", ")


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/nowhere", "./"),
        ("/movies/1/nothing", "../../"),
        ("/a//b/", "../../../"),
        ("/a%2Fb", "./"),
        ("/%22%3E%3Cscript%3E", "./"),
        ("/static-offline-docs/nothing", "../"),
    ],
)
def test_unknown_path_is_an_html_404_with_a_link_to_the_page_for_browsers(
    app: FastAPI, path: str, root: str, root_path: str
) -> None:
    with TestClient(app, root_path=root_path) as client:
        response = client.get(f"http://localhost{root_path}{path}", headers=BROWSER)

    expected = (FOLDER / "not_found.html").read_text(encoding="utf-8").replace("{root}", root)
    assert (response.status_code, response.text) == (404, expected)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"] == POLICY
    assert "Accept" in response.headers["Vary"].split(", ")


def test_errors_of_known_paths_and_of_writes_are_json_for_browsers_too(client: TestClient) -> None:
    assert client.post("/nowhere", headers=BROWSER).json() == NOT_FOUND
    assert client.get("/movies/99", headers=BROWSER).json() == {"detail": "Movie not found"}


def test_read_cache_never_mixes_html_and_json(client: TestClient, app: FastAPI) -> None:
    store(app.state.service.database.engine, HEAT)
    api_client = {"Accept": "*/*"}

    for headers in (BROWSER, api_client, BROWSER, api_client):
        unknown = client.get("/movies/1/nothing", headers=headers)
        assert (unknown.status_code, unknown.text.startswith("<!doctype html>")) == (
            404,
            headers is BROWSER,
        )
        assert client.get("/movies", headers=headers).json() == [movie_json(1, HEAT)]


def test_page_takes_fewer_than_760_lines() -> None:
    files = [path for path in FOLDER.rglob("*") if path.suffix in {".py", ".html", ".css", ".js"}]

    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)

    assert len(files) >= 9
    assert lines < 760

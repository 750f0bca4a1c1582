"""The service below a path of a proxy, regardless of how ``--root-path`` is written."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.server import Server, serving

FORMS = {"/api": "/api", "/api/": "/api", "api": "/api", "/api//": "/api", "/": "", "": "",
         "/a/b/": "/a/b"}  # fmt: skip


@pytest.fixture
def app(sqlite_url: str) -> FastAPI:
    """Return an application with the starter movies."""
    return create_app(Settings(database_url=sqlite_url))


@pytest.fixture(params=FORMS)
def root_path(request: pytest.FixtureRequest) -> str:
    """Return a value of ``--root-path``."""
    return str(request.param)


@pytest.fixture
def server(app: FastAPI, root_path: str) -> Iterator[Server]:
    """Yield the service behind a proxy that removes the prefix: it gets the paths without."""
    with serving(app, root_path) as server:
        yield server


def test_links_and_redirects_have_the_root_path_once(server: Server, root_path: str) -> None:
    prefix = FORMS[root_path]
    with server.client() as client:
        movies = client.get("/movies?limit=1")
        created = client.post("/movies", json={"title": "Heat", "year": 1995})
        redirects = [client.get(path) for path in ("/movies/", "/movies/top//?limit=1", "/docs/")]
        document = client.get("/openapi.json").json()
        docs = client.get("/docs").text
        page = client.get("/nowhere/at/all", headers={"Accept": "text/html"}).text

    assert movies.headers["Link"].startswith(f"<{prefix}/movies?limit=1&offset=0>")
    assert (created.status_code, created.headers["Location"]) == (201, f"{prefix}/movies/6")
    assert [each.headers["Location"] for each in redirects] == [
        f"{prefix}/movies", f"{prefix}/movies/top?limit=1", f"{prefix}/docs",
    ]  # fmt: skip
    assert document["servers"][0]["url"] == (prefix or "/")
    assert f"url: '{prefix}/openapi.json'" in docs
    assert f'src="{prefix}/static-offline-docs/' in docs
    # The page's links are relative.
    assert 'href="../../"' in page


def test_page_and_its_files_are_found(server: Server) -> None:
    with server.client() as client:
        statuses = [
            client.get(path).status_code
            for path in ("/", "/static/main.js", "/static-offline-docs/swagger-ui.css", "/health")
        ]

    assert statuses == [200] * 4


def test_path_that_has_the_prefix_already_is_found(app: FastAPI) -> None:
    """Check a full path: some servers do not remove the prefix."""
    with TestClient(app, root_path="/api/", follow_redirects=False) as client:
        movies = client.get("/api/movies?limit=1")
        again = client.get("/api/movies?limit=1")
        redirect = client.get("/api/movies/")

    assert movies.headers["Link"].startswith("</api/movies?limit=1&offset=0>")
    assert again.headers["Link"] == movies.headers["Link"]
    assert redirect.headers["Location"] == "/api/movies"

"""Only allowed host names are answered, which prevents DNS rebinding."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.config import STARTUP_FAILURE, Settings
from app.main import create_app
from tests.helpers import HEAT, store, words
from tests.logs import events
from tests.server import Server, serving

REFUSED = {"detail": "The service does not answer to this host name"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return only SQLite, which has the read cache; the engine does not matter otherwise."""
    return sqlite_url


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings that name two hosts."""
    return Settings(
        database_url=database_url,
        auto_setup=False,
        allowed_hosts="Movies.example, bücher.example",  # type: ignore[arg-type] # the environment's form
    )


@pytest.fixture
def server(app: FastAPI) -> Iterator[Server]:
    """Yield the application on a socket, for requests that no HTTP client sends."""
    with serving(app) as server:
        yield server


def test_allowed_host_is_answered(client: TestClient) -> None:
    hosts = words(
        """localhost:8000 movies 127.0.0.1 127.0.0.1:8000 192.168.1.7:8000 [::1]:8000 [fe80::1]
        movies.localhost laptop.local:8000 movies.internal. movies.example MOVIES.example.:443
        xn--bcher-kva.example"""
    )

    statuses = {host: client.get("/health", headers={"Host": host}).status_code for host in hosts}

    assert statuses == dict.fromkeys(hosts, 200)


def test_other_host_is_400_and_logged_with_the_name_of_the_setting(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = (
        *words("evil.example evil.example:8000 movies.example.evil.example evilmovies.example"),
        *words("www.movies.example 127.0.0.1.evil.example 127.0.0.1.nip.io 127.0.0 :8000"),
        *words("localhost.evil.example evil.example/localhost evil.example@localhost"),
        *words("[evil.example] [::1].evil.example"),
        *("localhost evil.example", ""),
    )
    with TestClient(create_app(settings)) as client:
        for host in hosts:
            headers = {b"Host": host.encode(), b"X-Trace-Id": b"mine"}
            response = client.get("/movies", headers=headers)

            assert (host, response.status_code, response.json()) == (host, 400, REFUSED)
            assert response.headers["X-Trace-Id"] == "mine"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            rejected, request = events(capsys.readouterr().err, "text")
            assert rejected == {
                "level": "WARNING",
                "event": "host.rejected",
                "host": host,
                "reason": "it is not in MOVIE_ALLOWED_HOSTS",
                "trace_id": "mine",
            }
            assert (request["event"], request["status"]) == ("http.request", "400")


def test_page_on_another_host_reads_and_writes_nothing(client: TestClient, app: FastAPI) -> None:
    store(app.state.service.database.engine, HEAT)
    as_others = client.get("/movies/1").json()  # the next read comes from the cache
    calls = [
        ("GET", "/movies/1", None),
        ("HEAD", "/movies/1", None),
        ("OPTIONS", "/movies", None),
        ("POST", "/movies", {"title": "Ronin", "year": 1998}),
        ("PATCH", "/movies/1", {"year": 1996}),
        ("DELETE", "/movies/1", None),
        ("POST", "/ratings", {"movie_id": 1, "score": 1}),
        ("GET", "/docs", None),
    ]

    statuses = [
        client.request(method, path, json=body, headers={"Host": "evil.example"}).status_code
        for method, path, body in calls
    ]

    assert statuses == [400] * len(calls)
    assert client.get("/movies").json() == [as_others]


def test_request_without_exactly_one_host_is_400(server: Server) -> None:
    requests = {
        b"GET /movies HTTP/1.1\r\n": 400,
        b"GET /movies HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n": 400,
        b"GET /movies HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n": 400,
        # HTTP 1.0 does not require a Host header.
        b"GET /movies HTTP/1.0\r\n": 200,
    }
    bodies = {200: b"[]", 400: b'{"detail":"The request must have one Host header"}'}

    for head, status in requests.items():
        with server.connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(head + b"Connection: close\r\n\r\n")
            start, _, body = answer.read().partition(b"\r\n\r\n")

        assert start.startswith(b"HTTP/1.1 %d " % status), head
        assert b"\r\nx-trace-id: " in start
        assert body == bodies[status]


def test_host_name_that_no_browser_sends_stops_the_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    invalid = words("https://movies.example movies.example:8000 movies.example/api * *.example")
    for hosts in (*invalid, "a b"):
        monkeypatch.setenv("MOVIE_ALLOWED_HOSTS", f"movies.example,{hosts}")

        with pytest.raises(SystemExit) as stopped:
            create_app()

        assert stopped.value.code == STARTUP_FAILURE
        assert capsys.readouterr().err.startswith(
            f"MOVIE_ALLOWED_HOSTS cannot match the host {hosts!r}. "
        )


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_redirect_is_relative_and_does_not_echo_the_host(app: FastAPI, root_path: str) -> None:
    locations = {
        "/movies/": "/movies",
        "/movies/?limit=1&q=%C3%A9": "/movies?limit=1&q=%C3%A9",
        "/movies/top//": "/movies/top",
        "/movies/a%3Fb%0D%0A/": "/movies/a%3Fb%0D%0A",
        "/docs/": "/docs",
    }
    with TestClient(app, root_path=root_path, follow_redirects=False) as client:
        answers = {
            path: client.get(root_path + path, headers={"Host": "127.0.0.1:1"})
            for path in locations
        }

    assert {
        path: (answer.status_code, answer.headers["Location"]) for path, answer in answers.items()
    } == {path: (307, root_path + location) for path, location in locations.items()}


def test_unknown_path_is_not_redirected(app: FastAPI) -> None:
    paths = words(
        "/nowhere/ //evil.example/ //evil.example/movies/ // /static-offline-docs/movies/"
    )
    with TestClient(app, follow_redirects=False) as client:
        statuses = {path: client.get(f"http://localhost{path}").status_code for path in paths}

    assert statuses == dict.fromkeys(paths, 404)


def test_redirected_write_keeps_its_method_and_body(client: TestClient) -> None:
    response = client.post("/movies/", json={"title": "Heat", "year": 1995})

    assert response.status_code == 201


def test_public_dns_names_are_refused_by_default(sqlite_url: str) -> None:
    with TestClient(create_app(Settings(database_url=sqlite_url))) as client:
        statuses = [
            client.get("/health", headers={"Host": host}).status_code
            for host in ("localhost", "movies.example")
        ]

    assert statuses == [200, 400]

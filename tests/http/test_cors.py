"""CORS: which pages may call the service from a browser, and what MOVIE_CORS_ORIGINS accepts."""

import pytest
from fastapi.testclient import TestClient

from app.config import STARTUP_FAILURE, Settings
from app.http.origins import normalize_origin
from app.main import create_app
from tests.helpers import words

LOCAL_PAGES = words(
    """http://localhost:5173 http://localhost:5174 https://localhost:5173 http://localhost
    http://127.0.0.1:3000 http://[::1]:8501"""
)
OTHER_PAGES = (
    *words("https://evil.example http://localhost.evil.example:3000 http://evil.localhost:3000"),
    *words("http://localhost:3000.evil.example http://localhost:evil.example ftp://localhost:3000"),
    *("null", ""),
)
# Origins as written in the setting and as browsers send them.
NORMALIZED = {
    "HTTP://Example.COM:80/": "http://example.com",
    "https://example.com:0443": "https://example.com",
    "https://example.com:80": "https://example.com:80",
    "http://my_host:8080": "http://my_host:8080",
    "http://example.com.": "http://example.com.",
    "http://[0:0:0:0:0:0:0:1]:3000": "http://[::1]:3000",
    "http://LOCALHOST:*": "http://localhost:*",
    "https://Bücher.example": "https://xn--bcher-kva.example",
    "https://東京.example": "https://xn--1lqs71d.example",
    "https://xn--strae-oqa.example": "https://xn--strae-oqa.example",
    "capacitor://localhost": "capacitor://localhost",
    "null": "null",
}
# Origins that no browser sends, and how the message shows them.
INVALID = {
    "localhost:3000": "'localhost:3000'",
    "http://localhost:3000/app": "'http://localhost:3000/app'",
    '["http://localhost:3000"]': "'[\"http://localhost:3000\"]'",
    "http://me:secret@example.com": "'...@example.com'",
    "http://example.com?a=1": "'http://example.com?a=1'",
    "http://example.com#a": "'http://example.com#a'",
    "ftp://example.com": "'ftp://example.com'",
    "http://a.example http://b.example": "'http://a.example http://b.example'",
    "http://example.com:99999": "'http://example.com:99999'",
    "http://example.com:0": "'http://example.com:0'",
    "http://example.com:": "'http://example.com:'",
    "http://": "'http://'",
    "http://a\nb": "'http://a\\nb'",
    f"http://{'a' * 200}/": f"the host '{'a' * 100}'",
    "http://*.example.com": "the host '*.example.com'",
    "http://127.1": "the host '127.1'",
    "http://[::1::]": "the host '[::1::]'",
    "http://a..b": "the host 'a..b'",
    "https://straße.example": "the host 'straße.example'",
}
# (MOVIE_CORS_ORIGINS, the origin that calls, the origin that is allowed).
ALLOWED: list[tuple[str, str, str | None]] = [
    ("HTTPS://Front.Example:443/, http://lan:*", "https://front.example", "https://front.example"),
    ("HTTPS://Front.Example:443/, http://lan:*", "http://lan:1", "http://lan:1"),
    ("HTTPS://Front.Example:443/, http://lan:*", "http://lan:2", "http://lan:2"),
    ("HTTPS://Front.Example:443/, http://lan:*", LOCAL_PAGES[0], None),
    ("", LOCAL_PAGES[0], None),
    ("", "", None),
    ("*", "https://any.example", "*"),
    ("*", "null", "*"),
]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return only SQLite, which has the read cache; the engine does not matter otherwise."""
    return sqlite_url


def test_local_page_may_read_responses_and_their_headers(client: TestClient) -> None:
    for origin in LOCAL_PAGES:
        headers = client.get("/movies", headers={"Origin": origin}).headers

        assert headers["Access-Control-Allow-Origin"] == origin
        exposed = {*headers["Access-Control-Expose-Headers"].split(", ")}
        assert exposed == {
            "X-Trace-Id",
            "X-Total-Count",
            "Link",
            "Location",
            "ETag",
            "X-Searched-For",
        }
        assert headers["Vary"] == "Accept-Encoding, Origin"


def test_local_page_may_write(client: TestClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        response = client.options(
            "/movies/1",
            headers={
                "Origin": LOCAL_PAGES[0],
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "Content-Type, X-Trace-Id, X-API-Key, If-Match",
            },
        )

        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == LOCAL_PAGES[0]
        assert method in response.headers["Access-Control-Allow-Methods"]
        assert "x-trace-id" in response.headers["Access-Control-Allow-Headers"].lower()


def test_other_origin_gets_no_permission(client: TestClient) -> None:
    for origin in OTHER_PAGES:
        headers = {"Origin": origin}
        plain = client.get("/movies", headers=headers)
        preflight = client.options(
            "/movies", headers=headers | {"Access-Control-Request-Method": "POST"}
        )

        assert (origin, plain.status_code, preflight.status_code) == (origin, 200, 400)
        for response in (plain, preflight):
            assert "Access-Control-Allow-Origin" not in response.headers


def test_refused_request_can_be_read_by_an_allowed_origin(sqlite_url: str) -> None:
    settings = Settings.model_validate({"database_url": sqlite_url, "api_key": "right"})
    with TestClient(create_app(settings)) as client:
        response = client.post("/movies", json={}, headers={"Origin": LOCAL_PAGES[0]})

    assert response.status_code == 401
    assert response.headers["Access-Control-Allow-Origin"] == LOCAL_PAGES[0]
    assert "X-Trace-Id" in response.headers["Access-Control-Expose-Headers"]


def test_cached_response_has_cors_headers_for_the_requesting_origin(client: TestClient) -> None:
    origins = [LOCAL_PAGES[0], None, LOCAL_PAGES[1], "https://evil.example"]

    allowed = [
        client.get("/movies", headers={"Origin": origin} if origin else {}).headers.get(
            "Access-Control-Allow-Origin"
        )
        for origin in origins * 2
    ]

    assert allowed == [LOCAL_PAGES[0], None, LOCAL_PAGES[1], None] * 2


def test_setting_replaces_the_default_origins(sqlite_url: str) -> None:
    for setting, origin, expected in ALLOWED:
        settings = Settings.model_validate({"database_url": sqlite_url, "cors_origins": setting})
        response = TestClient(create_app(settings)).get("/health", headers={"Origin": origin})

        allowed = response.headers.get("Access-Control-Allow-Origin")
        assert (setting, origin, allowed) == (setting, origin, expected)


def test_origin_is_compared_as_browsers_send_it() -> None:
    assert {origin: normalize_origin(origin) for origin in NORMALIZED} == NORMALIZED


def test_origin_that_no_browser_sends_stops_the_service_with_the_right_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for origin, shown in INVALID.items():
        monkeypatch.setenv("MOVIE_CORS_ORIGINS", f"https://good.example,{origin}")

        with pytest.raises(SystemExit) as stopped:
            create_app()

        right_form = (
            "Write it as a browser's address bar copies it: "
            "example.com, 127.0.0.1, [::1] or xn--bcher-kva.example."
            if shown.startswith("the host")
            else "Write origins like http://localhost:3000 or https://example.com, "
            "without a path, separated by commas."
        )
        assert stopped.value.code == STARTUP_FAILURE
        assert capsys.readouterr().err == f"MOVIE_CORS_ORIGINS cannot match {shown}. {right_form}\n"

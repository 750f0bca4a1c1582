"""The documentation page works without a network: the server serves everything it needs."""

import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.config import Settings
from app.main import create_app
from tests.browser import CHROMIUM, NO_NETWORK, needs_chromium
from tests.operations import OPERATIONS
from tests.server import DEADLINE_SECONDS, serving
from tests.shared import shared_application

CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    NO_NETWORK,
]


class Addresses(HTMLParser):
    """Collects the addresses in a page's tags and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect a tag's addresses."""
        self.found += [value for name, value in attributes if name in {"src", "href"} and value]

    def handle_data(self, data: str) -> None:
        """Collect the addresses that a script names."""
        self.found += re.findall(r"url: *['\"]([^'\"]+)", data)


def addresses_in(page: str) -> list[str]:
    """Return the addresses that a page refers to."""
    parser = Addresses()
    parser.feed(page)
    return parser.found


@pytest.fixture
def app() -> Iterator[FastAPI]:
    """Yield the application, whose database these tests do not open."""
    with shared_application(Settings()) as app:
        yield app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Return a client of the application, which has not started."""
    return TestClient(app)


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_page_refers_to_its_own_server_only(app: FastAPI, root_path: str) -> None:
    client = TestClient(app, root_path=root_path)

    page = client.get(f"{root_path}/docs").text

    assert "//" not in page
    addresses = addresses_in(page)
    assert len(addresses) >= 4  # a style sheet, an icon, a script, the OpenAPI document
    for address in addresses:
        assert address.startswith(f"{root_path}/")
        response = client.get(address)
        assert response.status_code == 200, address
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_page_runs_only_its_own_scripts(app: FastAPI, root_path: str) -> None:
    page = TestClient(app, root_path=root_path).get(f"{root_path}/docs")

    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"'{root_path}/openapi.json'" in script
    assert page.headers["Content-Security-Policy"] == (
        f"default-src 'self'; script-src 'self' 'sha256-{digest}'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_files_of_the_page_have_their_content_types(client: TestClient) -> None:
    kinds = {".css": "css", ".js": "javascript", ".json": "json", ".png": "image/png"}

    for address in addresses_in(client.get("/docs").text):
        assert kinds[Path(address).suffix] in client.get(address).headers["Content-Type"]


def test_there_is_no_second_documentation_page(client: TestClient) -> None:
    assert client.get("/redoc").status_code == 404


def test_files_outside_the_folder_of_the_page_are_not_served(client: TestClient) -> None:
    for path in ("/../core.py", "/%2e%2e/core.py", "/..%2fcore.py", "//etc/passwd", ""):
        assert client.get(f"/static-offline-docs{path}").status_code in {404, 405}, path


@pytest.mark.slow
@pytest.mark.ci
@needs_chromium
def test_page_lists_every_operation_in_a_browser_without_a_network(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CHROMIUM is not None, "CI has to have a Chromium"
    settings = Settings(database_url=sqlite_url, auto_setup=False, api_key=SecretStr("secret"))
    with serving(create_app(settings)) as server:
        browser = subprocess.run(  # noqa: S603 - a browser that is installed here
            [
                CHROMIUM,
                *CHROMIUM_OPTIONS,
                f"--user-data-dir={tmp_path / 'browser'}",
                "--virtual-time-budget=20000",
                "--dump-dom",
                f"{server.url}/docs",
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=True,
        )
    log = capsys.readouterr().err
    requests = [line for line in log.splitlines() if " http.request " in line]

    page = unescape(browser.stdout)
    listed = re.findall(r'opblock-summary-method">(\w+)<.*?data-path="([^"]+)"', page, re.DOTALL)
    assert sorted(listed) == sorted(
        (operation.method, operation.path)
        for operation in OPERATIONS
        for _ in operation.description["tags"]
    )
    for operation in OPERATIONS:
        assert operation.description["summary"] in page
    assert re.search(r'class="btn authorize[^"]*"><span>Authorize</span>', page)
    assert "Movie Service" in page
    assert requests
    assert all(" status=200 " in line for line in requests), requests

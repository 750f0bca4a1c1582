"""The address of the page, which the service logs when it starts."""

import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from app.config import Settings
from app.http import server_address
from app.main import create_app
from tests.databases import needs_postgresql
from tests.logs import parse_text
from tests.server import free_port, running_server

UVICORN = "/project/.venv/bin/uvicorn app.main:app"
# Commands, and the address that each listens on if it is known.
ADDRESSES = {
    UVICORN: "http://127.0.0.1:8000/",
    "/python/site-packages/uvicorn/__main__.py app.main:app": "http://127.0.0.1:8000/",
    f"{UVICORN} --reload --port=9000": "http://127.0.0.1:9000/",
    f"{UVICORN} --host 192.168.1.7 --port 80 --workers 4": "http://192.168.1.7:80/",
    f"{UVICORN} --host 0.0.0.0": "http://localhost:8000/",
    f"{UVICORN} --host ::": "http://localhost:8000/",
    f"{UVICORN} --host ::1": "http://[::1]:8000/",
    f"{UVICORN} --ssl-keyfile key.pem": "https://127.0.0.1:8000/",
    f"{UVICORN} --port 0": None,
    f"{UVICORN} --uds /run/movies.sock": None,
    f"{UVICORN} --fd 3": None,
    f"{UVICORN} --root-path /api": None,
    "/project/.venv/bin/gunicorn app.main:app --bind 127.0.0.1:80": None,
    "/project/.venv/bin/granian app.main:app --port 80": None,
    "/project/.venv/bin/pytest": None,
    "-c": None,
}


def test_address_follows_uvicorns_options(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for command in ADDRESSES:
        monkeypatch.setattr(sys, "argv", command.split())
        found[command] = server_address()

    assert found == ADDRESSES


def test_address_has_the_port_of_uvicorns_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", UVICORN.split())
    monkeypatch.setenv("UVICORN_PORT", "9000")

    assert server_address() == "http://127.0.0.1:9000/"


def test_start_logs_the_database_and_the_number_of_movies(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with TestClient(create_app(Settings(database_url=sqlite_url))):
        started = parse_text(capsys.readouterr().err.splitlines()[-1])

    assert started == {
        "level": "INFO",
        "event": "service.started",
        "database": sqlite_url,
        "movies": "5",
    }


@needs_postgresql
def test_start_does_not_log_the_password_of_the_database(
    postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_url(postgres_url)
    url = url.set(password=url.password or "no-password-needed")
    settings = Settings(database_url=url.render_as_string(hide_password=False), auto_setup=False)
    with TestClient(create_app(settings)):
        log = capsys.readouterr().err

    assert parse_text(log.splitlines()[-1])["database"] == url.render_as_string()
    assert str(url.password) not in log


@pytest.mark.slow
@pytest.mark.ci
def test_logged_page_and_documentation_can_be_opened(sqlite_url: str, tmp_path: Path) -> None:
    port = str(free_port())
    with (
        running_server(tmp_path, "--port", port, database_url=sqlite_url) as server,
        server.client() as client,
    ):
        [line] = [line for line in server.lines() if " service.started " in line]
        started = parse_text(line)
        statuses = [client.get(started[name]).status_code for name in ("page", "docs")]

    assert started["page"] == f"http://127.0.0.1:{port}/"
    assert started["docs"] == f"http://127.0.0.1:{port}/docs"
    assert statuses == [200, 200]

"""MOVIE_ names of a course or another program: one warning, and the service starts."""

import logging
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.config import Settings, load_settings, unknown_names
from app.db import create_db_engine
from app.main import create_app
from tests.helpers import words
from tests.logs import parse_text
from tests.server import running_server

COURSE = """\
# Week 3
MOVIE_DATA_DIR=./data
MOVIE_PORT=8501
MOVIE_CORS=*
MOVIE_THEME='dark'
MOVIE_TITLE
movie_user: ada
"""
# What Kubernetes sets for services called movie and movie-db.
SERVICE_LINKS = {
    "MOVIE_SERVICE_HOST": "10.0.0.7",
    "MOVIE_PORT_8000_TCP_ADDR": "10.0.0.7",
    "MOVIE_DB_PORT": "tcp://10.0.0.8:5432",
}


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the .env of a course, which settings are read from."""
    path = tmp_path / ".env"
    path.write_text(COURSE)
    monkeypatch.setitem(Settings.model_config, "env_file", path)
    return path


def warnings(written: str) -> list[dict[str, str]]:
    """Return the warnings about settings in the log."""
    lines = [line for line in written.splitlines() if "settings." in line]
    return [parse_text(line) for line in lines]


@pytest.mark.usefixtures("env_file")
def test_foreign_names_are_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sqlite_url: str
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", sqlite_url)
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)

    with TestClient(create_app()) as client:
        assert client.get("/health").status_code == 200

    names = [*SERVICE_LINKS, *words("MOVIE_DATA_DIR MOVIE_PORT MOVIE_CORS MOVIE_THEME")]
    assert warnings(capsys.readouterr().err) == [
        {"level": "WARNING", "event": "settings.ignored", "names": ",".join(names)}
    ]


def test_service_without_foreign_names_warns_of_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    create_app()

    assert warnings(capsys.readouterr().err) == []


@pytest.mark.usefixtures("env_file")
def test_commands_and_notebooks_do_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        settings = load_settings()
        create_db_engine(settings.database_url).dispose()
        create_app(settings)

    assert "settings.ignored" not in caplog.text


def test_only_a_near_miss_suggests_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    meant = {
        "MOVIE_LOG_LEVL": "MOVIE_LOG_LEVEL",  # one letter
        "MOVIE_LOG_LVL": "MOVIE_LOG_LEVEL",  # two
        "MOVIE_LOG_LV": None,  # three
        "MOVIE_L_O_G_L_E_V_E_L": "MOVIE_LOG_LEVEL",  # none: underscores do not count
        "MOVIE_DATABASE": None,
        "MOVIE_DATABASES_URLS": "MOVIE_DATABASE_URL",
        "MOVIE_KEY": "MOVIE_API_KEY",
        "MOVIE_MONKEY_ISLAND": "MOVIE_API_KEY",
        "MOVIE_": None,
        f"MOVIE_{'LOG' * 5000}": None,
    }
    for name in meant:
        monkeypatch.setenv(name, "x")

    assert unknown_names() == meant


@pytest.mark.slow
def test_server_starts_beside_the_names_of_a_course(tmp_path: Path, sqlite_url: str) -> None:
    with running_server(
        tmp_path, database_url=sqlite_url, data_dir="./data", theme="dark"
    ) as server:
        lines = server.lines()

    assert [event["names"] for event in warnings("\n".join(lines))] == [
        "MOVIE_DATA_DIR,MOVIE_THEME"
    ]

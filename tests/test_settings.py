"""Settings: where they come from, what they default to, and how a wrong one is refused."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from uvicorn.config import STARTUP_FAILURE

from app.config import PROJECT_ROOT, Settings, load_settings
from app.main import create_app

LOCAL_DEV_SERVERS = [
    "http://localhost:3000",
    "http://127.0.0.1:3000",
    "http://localhost:5173",
    "http://127.0.0.1:5173",
    "http://localhost:8501",
    "http://127.0.0.1:8501",
]
# What another program may have set, in every spelling that could be mistaken for this one's.
OTHER_PROGRAMS = {
    "DATABASE_URL": "postgresql://other@127.0.0.1/production",
    "AUTO_SETUP": "false",
    "CORS_ORIGINS": "https://other.example",
    "LOG_LEVEL": "ERROR",
    "LOG_FORMAT": "json",
}


def test_the_defaults_are_those_of_one_command_on_a_laptop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")

    settings = Settings()

    assert settings.database_url == f"sqlite:///{PROJECT_ROOT / 'movies.db'}"
    assert settings.auto_setup is True
    assert sorted(settings.cors_origins) == sorted(LOCAL_DEV_SERVERS)
    assert settings.log_level == "INFO"
    assert settings.log_format == "text"


def test_each_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", "sqlite:////var/lib/movies.db")
    monkeypatch.setenv("MOVIE_AUTO_SETUP", "false")
    monkeypatch.setenv("MOVIE_CORS_ORIGINS", " https://a.example/ ,, http://b.example:8080")
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "debug")
    monkeypatch.setenv("MOVIE_LOG_FORMAT", "json")

    settings = load_settings()

    assert settings.database_url == "sqlite:////var/lib/movies.db"
    assert settings.auto_setup is False
    assert settings.cors_origins == ["https://a.example", "http://b.example:8080"]
    assert settings.log_level == "DEBUG"
    assert settings.log_format == "json"


def test_what_belongs_to_another_program_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")
    for name, value in OTHER_PROGRAMS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text(
        "".join(f"{name}={value}\n" for name, value in OTHER_PROGRAMS.items())
    )
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")

    assert load_settings() == Settings.model_construct(
        database_url=f"sqlite:///{PROJECT_ROOT / 'movies.db'}"
    )


def test_a_file_of_settings_is_read_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "MOVIE_LOG_LEVEL=ERROR\nMOVIE_LOG_FORMAT=json\nMOVIE_CORS_ORIGINS=https://a.example\n"
        "MOVIE_SOMETHING_ELSE=ignored\n"
    )
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "WARNING")

    settings = load_settings()

    assert settings.log_level == "WARNING"
    assert settings.log_format == "json"
    assert settings.cors_origins == ["https://a.example"]


@pytest.mark.parametrize("value", ["", " ", ","])
def test_no_cors_origins_is_a_list_of_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVIE_CORS_ORIGINS", value)

    assert load_settings().cors_origins == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///movies.db", f"sqlite:///{PROJECT_ROOT}/movies.db"),
        ("sqlite:///./movies.db", f"sqlite:///{PROJECT_ROOT}/movies.db"),
        ("sqlite:///data/movies.db", f"sqlite:///{PROJECT_ROOT}/data/movies.db"),
        ("sqlite:////data/my movies.db", "sqlite:////data/my movies.db"),
        ("sqlite+aiosqlite:////data/movies.db", "sqlite:////data/movies.db"),
        ("postgresql://u:p@db:5433/movies", "postgresql+psycopg://u:p@db:5433/movies"),
        ("postgresql+psycopg://u:p@db/movies", "postgresql+psycopg://u:p@db/movies"),
        ("postgresql+psycopg2://u:p@db/movies", "postgresql+psycopg://u:p@db/movies"),
        ("postgresql+asyncpg://u:p@db/movies", "postgresql+psycopg://u:p@db/movies"),
        ("postgresql://u:p%40ss%2F%25@db/movies", "postgresql+psycopg://u:p%40ss%2F%25@db/movies"),
        ("postgres://u:p@db/movies", "postgresql+psycopg://u:p@db/movies"),
    ],
)
def test_a_database_means_the_same_from_every_folder(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Settings(database_url=given).database_url == meant


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DATABASE_URL", "", "must be a URL such as sqlite:///./movies.db"),
        ("DATABASE_URL", "movies.db", "must be a URL such as sqlite:///./movies.db"),
        ("DATABASE_URL", "sqlite://", "must name a file"),
        ("DATABASE_URL", "sqlite:///", "must name a file"),
        ("DATABASE_URL", "sqlite:///:memory:", "must name a file"),
        ("DATABASE_URL", "sqlite:///file::memory:?uri=true", "without options"),
        ("DATABASE_URL", "sqlite:////data/movies.db?timeout=soon", "without options"),
        ("DATABASE_URL", "sqlite:////data/a%00b.db", "NUL"),
        ("DATABASE_URL", "mysql://root:secret@127.0.0.1/movies", "sqlite or postgresql, not mysql"),
        ("DATABASE_URL", "oracle://root:secret@127.0.0.1", "sqlite or postgresql, not oracle"),
        ("DATABASE_URL", "postgresql://root:secret@127.0.0.1:port/movies", "port"),
        ("AUTO_SETUP", "perhaps", "boolean"),
        ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("LOG_FORMAT", "xml", "'text' or 'json'"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_a_line(
    name: str,
    value: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"MOVIE_{name}", value)

    with pytest.raises(SystemExit) as refusal:
        load_settings()

    assert refusal.value.code == STARTUP_FAILURE
    first, second = capsys.readouterr().err.splitlines()
    assert first == "Settings are not valid."
    assert second.startswith(f"MOVIE_{name}: ")
    assert reason in second
    assert "secret" not in second


def test_every_value_that_makes_no_sense_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", "movies.db")
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "LOUD")

    with pytest.raises(SystemExit):
        load_settings()

    names = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()[1:]]
    assert names == ["MOVIE_DATABASE_URL", "MOVIE_LOG_LEVEL"]


def test_a_refused_value_is_not_shown_since_it_may_hold_a_password() -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(database_url="mysql://root:secret@127.0.0.1/movies")

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("origin", LOCAL_DEV_SERVERS)
def test_a_local_dev_server_may_call_and_read_the_headers(origin: str, client: TestClient) -> None:
    response = client.get("/movies", headers={"Origin": origin})

    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert {"X-Trace-Id", "X-Total-Count", "Link", "Location"} <= {
        name.strip() for name in response.headers["Access-Control-Expose-Headers"].split(",")
    }
    assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_local_dev_server_may_write(method: str, client: TestClient) -> None:
    response = client.options(
        "/movies/1",
        headers={
            "Origin": LOCAL_DEV_SERVERS[0],
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "Content-Type, X-Trace-Id, X-API-Key",
        },
    )

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == LOCAL_DEV_SERVERS[0]
    assert method in response.headers["Access-Control-Allow-Methods"]
    assert "x-trace-id" in response.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:3001",
        "https://localhost:3000",
        "http://localhost:3000.evil.example",
        "http://localhost",
        "null",
    ],
)
def test_another_origin_gets_no_permission(origin: str, client: TestClient) -> None:
    plain = client.get("/movies", headers={"Origin": origin})
    preflight = client.options(
        "/movies", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )

    assert plain.status_code == 200
    assert "Access-Control-Allow-Origin" not in plain.headers
    assert preflight.status_code == 400
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_a_cached_answer_has_the_permission_of_its_own_origin(client: TestClient) -> None:
    origins = [LOCAL_DEV_SERVERS[0], None, LOCAL_DEV_SERVERS[1], "https://evil.example"]

    allowed = [
        client.get("/movies", headers={"Origin": origin} if origin else {}).headers.get(
            "Access-Control-Allow-Origin"
        )
        for origin in origins * 2
    ]

    assert allowed == [LOCAL_DEV_SERVERS[0], None, LOCAL_DEV_SERVERS[1], None] * 2


def test_the_origins_that_are_set_replace_the_default_ones(database_url: str) -> None:
    settings = Settings(
        database_url=database_url, auto_setup=False, cors_origins=["https://front.example"]
    )
    with TestClient(create_app(settings)) as client:
        allowed = [
            client.get("/movies", headers={"Origin": origin}).headers.get(
                "Access-Control-Allow-Origin"
            )
            for origin in ("https://front.example", LOCAL_DEV_SERVERS[0])
        ]

    assert allowed == ["https://front.example", None]

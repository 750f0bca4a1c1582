"""Settings: their sources, their defaults, and the errors for invalid ones."""

from pathlib import Path

import pytest
import uvicorn.config
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import URL

from app.config import PROJECT_ROOT, STARTUP_FAILURE, Settings, load_settings
from app.main import create_app

# Settings of another program, without the prefix.
OTHER_PROGRAMS = {
    "DATABASE_URL": "postgresql://other@127.0.0.1/production",
    "AUTO_SETUP": "false",
    "CORS_ORIGINS": "https://other.example",
    "LOG_LEVEL": "ERROR",
    "LOG_FORMAT": "json",
}


def in_project(file: str) -> str:
    """Return the URL of a file in the project's folder, quoted if necessary."""
    return URL.create("sqlite", database=str(PROJECT_ROOT / file)).render_as_string()


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the .env that settings are read from; the file does not exist yet."""
    path = tmp_path / ".env"
    monkeypatch.setitem(Settings.model_config, "env_file", path)
    return path


def error_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines with which invalid settings end the program."""
    with pytest.raises(SystemExit) as stopped:
        load_settings()
    assert stopped.value.code == STARTUP_FAILURE
    return capsys.readouterr().err.splitlines()


def test_defaults_suit_a_laptop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")

    settings = Settings()

    assert settings.database_url == in_project("movies.db")
    assert settings.auto_setup is True
    assert sorted(settings.cors_origins) == [
        "http://127.0.0.1:*",
        "http://[::1]:*",
        "http://localhost:*",
        "https://127.0.0.1:*",
        "https://[::1]:*",
        "https://localhost:*",
    ]
    assert settings.log_level == "INFO"
    assert settings.log_format == "text"


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", "sqlite:////var/lib/movies.db")
    monkeypatch.setenv("MOVIE_AUTO_SETUP", "false")
    monkeypatch.setenv("MOVIE_CORS_ORIGINS", " https://a.example/ ,, http://b.example:8080")
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "debug")
    monkeypatch.setenv("MOVIE_LOG_FORMAT", "json")

    settings = load_settings()

    assert settings.database_url == "sqlite:////var/lib/movies.db"
    assert settings.auto_setup is False
    assert settings.cors_origins == ["https://a.example/", "http://b.example:8080"]
    assert settings.log_level == "DEBUG"
    assert settings.log_format == "json"


def test_settings_of_another_program_are_ignored(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")
    for name, value in OTHER_PROGRAMS.items():
        monkeypatch.setenv(name, value)
    env_file.write_text("".join(f"{name}={value}\n" for name, value in OTHER_PROGRAMS.items()))

    assert load_settings() == Settings.model_construct(database_url=in_project("movies.db"))


def test_env_file_is_read_and_the_environment_takes_precedence(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(
        "MOVIE_LOG_LEVEL=ERROR\nMOVIE_LOG_FORMAT=json\nMOVIE_CORS_ORIGINS=https://a.example\n",
        encoding="utf-8-sig",  # as Windows editors save it
    )
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "WARNING")

    settings = load_settings()

    assert settings.log_level == "WARNING"
    assert settings.log_format == "json"
    assert settings.cors_origins == ["https://a.example"]


@pytest.mark.parametrize("value", ["", " ", ","])
def test_blank_list_of_origins_is_empty(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVIE_CORS_ORIGINS", value)

    assert load_settings().cors_origins == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///movies.db", in_project("movies.db")),
        ("sqlite:///./movies.db", in_project("movies.db")),
        ("sqlite:///data/movies.db", in_project("data/movies.db")),
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
def test_database_url_means_the_same_from_every_folder(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Settings(database_url=given).database_url == meant


def test_database_path_may_contain_special_characters(tmp_path: Path) -> None:
    path = tmp_path / "100% of my #movies é.db"

    with TestClient(create_app(Settings(database_url=f"sqlite:///{path}"))) as client:
        response = client.get("/ready")

    assert response.status_code == 200
    assert [file.name for file in tmp_path.glob("*.db")] == [path.name]


IN_MEMORY = "must name a file: threads cannot share a database in memory"
SLASHES = "must have three slashes or four: sqlite:///./movies.db"
OPTIONS = "must be a file's path alone, without '?' and options"
KEY = "must be printable ASCII without spaces"
INVALID = [
    ("DATABASE_URL", "", "must be a URL such as sqlite:///./movies.db"),
    ("DATABASE_URL", "movies.db", "must be a URL such as sqlite:///./movies.db"),
    ("DATABASE_URL", "sqlite://", IN_MEMORY),
    ("DATABASE_URL", "sqlite:///", IN_MEMORY),
    ("DATABASE_URL", "sqlite:///:memory:", IN_MEMORY),
    ("DATABASE_URL", "sqlite://movies.db", SLASHES),
    ("DATABASE_URL", "sqlite://me:secret@/movies.db", SLASHES),
    ("DATABASE_URL", "sqlite:///a?b.db", OPTIONS),
    ("DATABASE_URL", "sqlite:///./movies.db?mode=ro", OPTIONS),
    ("DATABASE_URL", "sqlite:////data/a%00b.db", "must not contain a NUL character"),
    (
        "DATABASE_URL",
        "mysql://root:secret@127.0.0.1/movies",
        "must be sqlite or postgresql, not mysql",
    ),
    (
        "DATABASE_URL",
        "postgresql://root:secret/movies",
        "must have a number as its port: postgresql://user:password@host:5432/movies",
    ),
    ("AUTO_SETUP", "perhaps", "must be a valid boolean, unable to interpret input"),
    ("LOG_LEVEL", "LOUD", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ("LOG_FORMAT", "xml", "must be 'text' or 'json'"),
    ("BUSY_TIMEOUT", "soon", "must be a valid number, unable to parse string as a number"),
    ("BUSY_TIMEOUT", "nan", "must be a finite number"),
    ("BUSY_TIMEOUT", "1e999", "must be a finite number"),
    ("BUSY_TIMEOUT", "-1", "must be greater than or equal to 0"),
    ("BUSY_TIMEOUT", "3601", "must be less than or equal to 3600"),
    ("MAX_BODY_BYTES", "64KB", "must be a valid integer, unable to parse string as an integer"),
    (
        "MAX_BODY_BYTES",
        "9" * 5000,
        "Unable to parse input string as an integer, exceeded maximum size",
    ),
    ("MAX_BODY_BYTES", "1023", "must be greater than or equal to 1024"),
    ("MAX_BODY_BYTES", "104857601", "must be less than or equal to 104857600"),
    ("API_KEY", "", "is empty: set a key, or remove the setting to let everyone write"),
    ("API_KEY", "my secret", KEY),
    ("API_KEY", "Schlüssel", KEY),
    ("API_KEY", "line\nbreak", KEY),
]


def test_invalid_value_is_a_line_with_the_setting_and_the_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value, reason in INVALID:
        with monkeypatch.context() as patch:
            patch.setenv(f"MOVIE_{name}", value)

            assert error_lines(capsys) == [f"MOVIE_{name} {reason}."], value


def test_each_invalid_setting_has_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", "movies.db")
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("MOVIE_APIKEY", "secret")

    assert [line.split()[0] for line in error_lines(capsys)] == [
        "MOVIE_APIKEY",
        "MOVIE_DATABASE_URL",
        "MOVIE_LOG_LEVEL",
    ]


def test_sqlite_database_with_replicas_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_READ_DATABASE_URL", "postgresql://movies:secret@db2/movies")

    [line] = error_lines(capsys)
    assert line == (
        "MOVIE_READ_DATABASE_URL names replicas of a PostgreSQL database: "
        "it and MOVIE_DATABASE_URL must begin with postgresql://."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MOVIE_APIKEY", "Did you mean MOVIE_API_KEY?"),
        ("movie_apikey", "Did you mean MOVIE_API_KEY?"),
        ("MOVIE_DATABSE_URL", "Did you mean MOVIE_DATABASE_URL?"),
        ("MOVIE__APIKEY_", "Did you mean MOVIE_API_KEY?"),
        ("MOVIE_LOGLEVELS", "Did you mean MOVIE_LOG_LEVEL?"),
        ("MOVIE_ALLOWED_HSTOS", "Did you mean MOVIE_ALLOWED_HOSTS?"),
        ("MOVIE_MERTICS", "Did you mean MOVIE_METRICS?"),
        # A lost key would leave the service open.
        ("MOVIE_SECRET_KEY", "Did you mean MOVIE_API_KEY?"),
        ("MOVIE_Keys", "Did you mean MOVIE_API_KEY?"),
    ],
)
def test_unknown_name_is_refused_with_the_closest_setting(
    name: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "8000")

    assert error_lines(capsys) == [f"{name} is not a setting. {hint}"]


def test_unknown_name_in_the_env_file_is_refused_once(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_APIKEY", "secret")
    env_file.write_text("OTHER=1\nexport MOVIE_APIKEY=secret\n'movie_log_levle'=\n")

    assert error_lines(capsys) == [
        "MOVIE_APIKEY is not a setting. Did you mean MOVIE_API_KEY?",
        "movie_log_levle is not a setting. Did you mean MOVIE_LOG_LEVEL?",
    ]


def test_setting_names_are_case_insensitive(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"MOVIE_{field.upper()}" for field in Settings.model_fields]
    for name in names:
        monkeypatch.setenv(name, "?")
    env_file.write_text("".join(f"{name.lower()}=?\n" for name in names))

    assert "is not a setting" not in "".join(error_lines(capsys))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOVIE_TEST_POSTGRES_URL", "postgresql://127.0.0.1/test"),
        ("MOVIE_TEST_EXAMPLES", "300"),
        ("MY_MOVIE_PORT", "8000"),
    ],
)
def test_names_of_tests_and_of_others_are_ignored(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert load_settings() == Settings()


@pytest.mark.parametrize(
    "line",
    [
        "MOVIE_API_KEY",
        "MOVIE_API_KEY: secret",
        'MOVIE_API_KEY="secret',
        "set MOVIE_API_KEY=secret",
        '$env:MOVIE_API_KEY="secret"',
    ],
)
def test_unreadable_line_of_the_env_file_is_refused(
    line: str, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.write_text(f"# MOVIE_FOO=1\nOTHER=MOVIE_FOO # MOVIE_FOO\nBARE\n{line}\n")

    assert "\n".join(error_lines(capsys)) == (
        f"MOVIE_API_KEY in {env_file} cannot be read. "
        "Write MOVIE_API_KEY=value on a separate line, with both quotation marks or none."
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_env_file_that_is_not_utf_8_is_refused(
    encoding: str, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a byte order mark, UTF-16 of plain English is valid UTF-8.
    accent = "" if encoding == "utf-16-le" else "é"
    env_file.write_text(f"# cl{accent}\nMOVIE_API_KEY=secret\n", encoding=encoding)

    [line] = error_lines(capsys)
    assert line == f"{env_file} is not UTF-8 text. Save it with the encoding UTF-8."


def test_env_file_that_cannot_be_opened_is_refused(
    env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.mkdir()
    assert error_lines(capsys) == [f"{env_file} cannot be read: Is a directory."]

    env_file.rmdir()
    env_file.symlink_to("not-mounted")
    assert error_lines(capsys) == [f"{env_file} cannot be read: No such file or directory."]


def test_exit_code_stops_uvicorn_from_restarting() -> None:
    assert uvicorn.config.STARTUP_FAILURE == STARTUP_FAILURE


def test_invalid_value_is_not_shown() -> None:
    with pytest.raises(ValidationError) as error:
        Settings(database_url="mysql://root:secret@127.0.0.1/movies")

    assert "secret" not in str(error.value)

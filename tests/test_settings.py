"""Settings: their sources, their defaults, and the errors for invalid ones."""

from pathlib import Path

import pytest
import uvicorn.config
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import URL

from app.config import PROJECT_ROOT, STARTUP_FAILURE, Settings, load_settings, normalize_origin
from app.main import create_app
from tests.server import Commands, Finished

LOCAL_PAGES = [
    "http://localhost:5173",
    "http://localhost:5174",
    "https://localhost:5173",
    "http://localhost",
    "http://127.0.0.1:3000",
    "http://[::1]:8501",
]
# What another program may have set, in every spelling that could be mistaken for this one's.
OTHER_PROGRAMS = {
    "DATABASE_URL": "postgresql://other@127.0.0.1/production",
    "AUTO_SETUP": "false",
    "CORS_ORIGINS": "https://other.example",
    "LOG_LEVEL": "ERROR",
    "LOG_FORMAT": "json",
}


def in_project(file: str) -> str:
    """Return the URL of a file in the project's folder, whose name may need quoting."""
    return URL.create("sqlite", database=str(PROJECT_ROOT / file)).render_as_string()


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings look for a .env; there is none yet."""
    path = tmp_path / ".env"
    monkeypatch.setitem(Settings.model_config, "env_file", path)
    return path


def refusal(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that the settings are refused with."""
    with pytest.raises(SystemExit) as stopped:
        load_settings()
    assert stopped.value.code == STARTUP_FAILURE
    return capsys.readouterr().err.splitlines()


def test_the_defaults_are_those_of_one_command_on_a_laptop(
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
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")
    for name, value in OTHER_PROGRAMS.items():
        monkeypatch.setenv(name, value)
    env_file.write_text("".join(f"{name}={value}\n" for name, value in OTHER_PROGRAMS.items()))

    assert load_settings() == Settings.model_construct(database_url=in_project("movies.db"))


def test_a_file_of_settings_is_read_and_the_environment_goes_before_it(
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
def test_no_cors_origins_is_a_list_of_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_database_means_the_same_from_every_folder(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Settings(database_url=given).database_url == meant


def test_a_path_with_special_characters_is_the_database(tmp_path: Path) -> None:
    path = tmp_path / "100% of my #movies é.db"

    with TestClient(create_app(Settings(database_url=f"sqlite:///{path}"))) as client:
        response = client.get("/ready")

    assert response.status_code == 200
    assert [file.name for file in tmp_path.glob("*.db")] == [path.name]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DATABASE_URL", "", "must be a URL such as sqlite:///./movies.db"),
        ("DATABASE_URL", "movies.db", "must be a URL such as sqlite:///./movies.db"),
        (
            "DATABASE_URL",
            "sqlite://",
            "must name a file: threads cannot share a database in memory",
        ),
        (
            "DATABASE_URL",
            "sqlite:///",
            "must name a file: threads cannot share a database in memory",
        ),
        (
            "DATABASE_URL",
            "sqlite:///:memory:",
            "must name a file: threads cannot share a database in memory",
        ),
        (
            "DATABASE_URL",
            "sqlite://movies.db",
            "must have three slashes or four: sqlite:///./movies.db",
        ),
        (
            "DATABASE_URL",
            "sqlite://me:secret@/movies.db",
            "must have three slashes or four: sqlite:///./movies.db",
        ),
        (
            "DATABASE_URL",
            "sqlite:///a?b.db",
            "must be a file's path alone, without '?' and options",
        ),
        (
            "DATABASE_URL",
            "sqlite:///./movies.db?mode=ro",
            "must be a file's path alone, without '?' and options",
        ),
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
        ("AUTO_SETUP", "perhaps", "must be true or false"),
        ("LOG_LEVEL", "LOUD", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("LOG_FORMAT", "xml", "must be 'text' or 'json'"),
        ("BUSY_TIMEOUT", "soon", "must be a number"),
        ("BUSY_TIMEOUT", "nan", "must be a number"),
        ("BUSY_TIMEOUT", "1e999", "must be a number"),
        ("BUSY_TIMEOUT", "-1", "must be greater than or equal to 0"),
        ("BUSY_TIMEOUT", "3601", "must be less than or equal to 3600"),
        ("MAX_BODY_BYTES", "64KB", "must be a whole number"),
        ("MAX_BODY_BYTES", "9" * 5000, "must be a whole number"),
        ("MAX_BODY_BYTES", "1023", "must be greater than or equal to 1024"),
        ("MAX_BODY_BYTES", "104857601", "must be less than or equal to 104857600"),
        ("API_KEY", "", "is empty: set a key, or remove the setting to let everyone write"),
        ("API_KEY", "my secret", "must be printable ASCII without spaces"),
    ],
)
def test_an_invalid_value_is_one_line_that_names_the_setting_and_the_bound(
    name: str,
    value: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"MOVIE_{name}", value)

    assert refusal(capsys) == [f"MOVIE_{name} {reason}."]


def test_every_invalid_setting_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", "movies.db")
    monkeypatch.setenv("MOVIE_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("MOVIE_APIKEY", "secret")

    assert [line.split()[0] for line in refusal(capsys)] == [
        "MOVIE_APIKEY",
        "MOVIE_DATABASE_URL",
        "MOVIE_LOG_LEVEL",
    ]


def test_replicas_of_a_sqlite_database_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_READ_DATABASE_URL", "postgresql://movies:secret@db2/movies")

    [line] = refusal(capsys)
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
        ("MOVIE_CORS", "Did you mean MOVIE_CORS_ORIGINS?"),
        ("MOVIE_PORT", "All are in .env.example."),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_known_one(
    name: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "8000")

    assert refusal(capsys) == [f"{name} is not a setting. {hint}"]


def test_an_unknown_name_in_the_file_is_refused_as_well_and_once(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOVIE_APIKEY", "secret")
    env_file.write_text("OTHER=1\nexport MOVIE_APIKEY=secret\n'movie_test'=\n")

    assert refusal(capsys) == [
        "MOVIE_APIKEY is not a setting. Did you mean MOVIE_API_KEY?",
        "movie_test is not a setting. All are in .env.example.",
    ]


def test_every_setting_is_known_in_any_case(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"MOVIE_{field.upper()}" for field in Settings.model_fields]
    for name in names:
        monkeypatch.setenv(name, "?")
    env_file.write_text("".join(f"{name.lower()}=?\n" for name in names))

    assert "is not a setting" not in "".join(refusal(capsys))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOVIE_TEST_POSTGRES_URL", "postgresql://127.0.0.1/test"),
        ("MOVIE_TEST_EXAMPLES", "300"),
        ("MY_MOVIE_PORT", "8000"),
        # What Kubernetes sets for a service called movie, and for one called movie-service.
        ("MOVIE_SERVICE_HOST", "10.0.0.7"),
        ("MOVIE_SERVICE_PORT_HTTP", "8000"),
        ("MOVIE_PORT", "tcp://10.0.0.7:8000"),
        ("MOVIE_PORT_8000_TCP_ADDR", "10.0.0.7"),
        ("MOVIE_SERVICE_SERVICE_PORT", "8000"),
        ("MOVIE_SERVICE_PORT_8000_TCP", "tcp://10.0.0.7:8000"),
    ],
)
def test_a_name_that_was_not_meant_as_a_setting_is_ignored(
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
def test_a_line_of_the_file_that_would_set_nothing_is_refused(
    line: str, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.write_text(f"# MOVIE_FOO=1\nOTHER=MOVIE_FOO # MOVIE_FOO\nBARE\n{line}\n")

    assert "\n".join(refusal(capsys)) == (
        f"MOVIE_API_KEY in {env_file} cannot be read. "
        "Write MOVIE_API_KEY=value on a line of its own, with both quotation marks or none."
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_that_is_not_utf_8_is_named(
    encoding: str, env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a byte order mark, UTF-16 of plain English is valid UTF-8.
    accent = "" if encoding == "utf-16-le" else "é"
    env_file.write_text(f"# cl{accent}\nMOVIE_API_KEY=secret\n", encoding=encoding)

    assert refusal(capsys) == [f"{env_file} is not UTF-8 text. Save it with the encoding UTF-8."]


def test_a_file_that_is_a_folder_is_named(
    env_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file.mkdir()

    assert refusal(capsys) == [f"{env_file} cannot be read: Is a directory."]


def test_a_link_to_no_file_is_named(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env_file.symlink_to("not-mounted")

    assert refusal(capsys) == [f"{env_file} cannot be read: No such file or directory."]


@pytest.mark.slow
def test_settings_load_no_web_framework(elsewhere: Path) -> None:
    program = (
        "import sys, app.config; "
        "print({'fastapi', 'starlette', 'uvicorn', 'asgi_correlation_id'} & {*sys.modules})"
    )

    assert Commands(elsewhere).python("-c", program) == Finished(0, "set()\n", "")


def test_a_refusal_has_the_exit_code_that_makes_uvicorn_give_up() -> None:
    assert uvicorn.config.STARTUP_FAILURE == STARTUP_FAILURE


def test_a_refused_value_is_not_shown_since_it_may_hold_a_password() -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(database_url="mysql://root:secret@127.0.0.1/movies")

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("origin", LOCAL_PAGES)
def test_a_local_dev_server_may_call_and_read_the_headers(origin: str, client: TestClient) -> None:
    response = client.get("/movies", headers={"Origin": origin})

    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert {"X-Trace-Id", "X-Total-Count", "Link", "Location"} <= {
        name.strip() for name in response.headers["Access-Control-Expose-Headers"].split(",")
    }
    assert response.headers["Vary"] == "Accept-Encoding, Origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_local_dev_server_may_write(method: str, client: TestClient) -> None:
    response = client.options(
        "/movies/1",
        headers={
            "Origin": LOCAL_PAGES[0],
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "Content-Type, X-Trace-Id, X-API-Key",
        },
    )

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == LOCAL_PAGES[0]
    assert method in response.headers["Access-Control-Allow-Methods"]
    assert "x-trace-id" in response.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost.evil.example:3000",
        "http://localhost:3000.evil.example",
        "http://localhost:evil.example",
        "http://evil.localhost:3000",
        "ftp://localhost:3000",
        "null",
        "",
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
    origins = [LOCAL_PAGES[0], None, LOCAL_PAGES[1], "https://evil.example"]

    allowed = [
        client.get("/movies", headers={"Origin": origin} if origin else {}).headers.get(
            "Access-Control-Allow-Origin"
        )
        for origin in origins * 2
    ]

    assert allowed == [LOCAL_PAGES[0], None, LOCAL_PAGES[1], None] * 2


def allowed_origins(database_url: str, cors_origins: str, *origins: str) -> list[str | None]:
    """Return what a service with a setting answers to each origin."""
    settings = Settings.model_validate({"database_url": database_url, "cors_origins": cors_origins})
    client = TestClient(create_app(settings))
    return [
        client.get("/health", headers={"Origin": origin}).headers.get("Access-Control-Allow-Origin")
        for origin in origins
    ]


def test_the_origins_that_are_set_replace_the_default_ones(sqlite_url: str) -> None:
    origins = ("https://front.example", "http://lan:1", "http://lan:2", LOCAL_PAGES[0])

    allowed = allowed_origins(sqlite_url, "HTTPS://Front.Example:443/, http://lan:*", *origins)

    assert allowed == ["https://front.example", "http://lan:1", "http://lan:2", None]


def test_an_empty_list_allows_no_origin(sqlite_url: str) -> None:
    assert allowed_origins(sqlite_url, "", LOCAL_PAGES[0], "") == [None, None]


def test_a_star_allows_every_page(sqlite_url: str) -> None:
    assert allowed_origins(sqlite_url, "*", "https://any.example", "null") == ["*", "*"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("HTTP://Example.COM:80/", "http://example.com"),
        ("https://example.com:0443", "https://example.com"),
        ("https://example.com:80", "https://example.com:80"),
        ("http://my_host:8080", "http://my_host:8080"),
        ("http://example.com.", "http://example.com."),
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("http://LOCALHOST:*", "http://localhost:*"),
        ("https://Bücher.example", "https://xn--bcher-kva.example"),
        ("https://東京.example", "https://xn--1lqs71d.example"),
        ("https://xn--strae-oqa.example", "https://xn--strae-oqa.example"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
    ],
)
def test_an_origin_is_stored_as_browsers_send_it(given: str, sent: str) -> None:
    assert normalize_origin(given) == sent


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("localhost:3000", "'localhost:3000'"),
        ("http://localhost:3000/app", "'http://localhost:3000/app'"),
        ('["http://localhost:3000"]', "'[\"http://localhost:3000\"]'"),
        ("http://me:secret@example.com", "'...@example.com'"),
        ("http://example.com?a=1", "'http://example.com?a=1'"),
        ("http://example.com#a", "'http://example.com#a'"),
        ("ftp://example.com", "'ftp://example.com'"),
        ("http://a.example http://b.example", "'http://a.example http://b.example'"),
        ("http://example.com:99999", "'http://example.com:99999'"),
        ("http://example.com:0", "'http://example.com:0'"),
        ("http://example.com:", "'http://example.com:'"),
        ("http://", "'http://'"),
        ("http://a\nb", "'http://a\\nb'"),
        (f"http://{'a' * 200}/", f"the host '{'a' * 100}'"),
        ("http://*.example.com", "the host '*.example.com'"),
        ("http://127.1", "the host '127.1'"),
        ("http://[::1::]", "the host '[::1::]'"),
        ("http://a..b", "the host 'a..b'"),
        ("https://straße.example", "the host 'straße.example'"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_the_right_form(
    value: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MOVIE_CORS_ORIGINS", f"https://good.example,{value}")

    (line,) = refusal(capsys)

    right_form = (
        "Write it as a browser's address bar copies it: "
        "example.com, 127.0.0.1, [::1] or xn--bcher-kva.example."
        if shown.startswith("the host")
        else "Write origins like http://localhost:3000 or https://example.com, "
        "without a path, and separate them by commas."
    )
    assert line == f"MOVIE_CORS_ORIGINS cannot match {shown}. {right_form}"

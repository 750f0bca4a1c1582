"""Settings, read from the environment and from .env."""

import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
# uvicorn's exit code for a failed start-up; it restarts a worker that ends with any other.
# A copy, because scripts and notebooks read settings without loading a server.
STARTUP_FAILURE = 3
PREFIX = "MOVIE_"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
LOCAL_ORIGINS = [f"{scheme}://{host}:*" for scheme in ("http", "https") for host in LOCAL_HOSTS]

_NAME = re.compile(rf"\b{PREFIX}\w+", re.IGNORECASE)
# Setting names are case-insensitive. Those of the tests are not the service's.
_OWN_NAME = re.compile(rf"{PREFIX}(?!TEST_)", re.IGNORECASE)


class Settings(BaseSettings):
    """The service's settings; each is an environment variable named ``MOVIE_`` + field.

    The prefix keeps this program from migrating the ``DATABASE_URL`` of another program.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=PROJECT_ROOT / ".env", extra="ignore", hide_input_in_errors=True
    )

    database_url: str = Field(
        default="sqlite:///./movies.db",
        description="SQLite file or PostgreSQL. A relative path starts at the project's folder.",
    )
    read_database_url: str | None = Field(
        default=None,
        description=(
            "PostgreSQL replicas to read from. Writes then wait until the synchronous replicas "
            "have applied them."
        ),
    )
    auto_setup: bool = Field(
        default=True,
        description="Upgrade the schema at start-up; load starter movies if there are none.",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=LOCAL_ORIGINS,
        description=(
            "Origins that a browser may call from, separated by commas. The port * means any port; "
            "* alone means every origin."
        ),
    )
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        default=[],
        description=(
            "Additional host names to answer to, separated by commas. IP addresses, names without "
            "a dot, and names outside public DNS, such as *.local, are always allowed."
        ),
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum level of log lines."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Plain lines, or one JSON object per line."
    )

    busy_timeout: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description=(
            "How long a write may queue and wait for the lock before it fails with 503, in seconds."
        ),
    )
    read_cache: bool = Field(
        default=True,
        description="Serve repeated reads from memory until the next commit. SQLite only.",
    )

    metrics: bool = Field(
        default=False, description="Serve GET /metrics for Prometheus. Needs the extra metrics."
    )

    api_key: SecretStr | None = Field(
        default=None, description="If set, writes need it in the header X-API-Key."
    )
    max_body_bytes: int = Field(
        default=64 * 1024,
        ge=1024,
        le=100 * 1024 * 1024,  # a body is held in memory
        description="Maximum size of a body; a longer one gets 413.",
    )

    @field_validator("cors_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split_on_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not value.get_secret_value():
            raise ValueError("is empty: set a key, or remove the setting to let everyone write")
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url", "read_database_url")
    @classmethod
    def _one_meaning_from_every_folder(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            # Hosting services hand out the short form.
            url = make_url(re.sub(r"^postgres://", "postgresql://", value))
        except ArgumentError:
            raise ValueError("must be a URL such as sqlite:///./movies.db") from None
        except ValueError:  # its message would show a password without an @ after it
            example = "postgresql://user:password@host:5432/movies"
            raise ValueError(f"must have a number as its port: {example}") from None
        if "\0" in str(url.database):
            raise ValueError("must not contain a NUL character")
        match url.get_backend_name():
            case "sqlite":
                if "?" in value:
                    raise ValueError("must be a file's path alone, without '?' and options")
                if url.host or url.username:
                    raise ValueError("must have three slashes or four: sqlite:///./movies.db")
                if url.database in (None, "", ":memory:"):
                    raise ValueError("must name a file: threads cannot share a database in memory")
                # Commands must find the same database from any folder.
                path = PROJECT_ROOT / Path(str(url.database))
                url = url.set(drivername="sqlite", database=str(path))
            case "postgresql":
                url = url.set(drivername="postgresql+psycopg")
            case other:
                raise ValueError(f"must be sqlite or postgresql, not {other}")
        return url.render_as_string(hide_password=False)

    @model_validator(mode="after")
    def _only_postgresql_has_replicas(self) -> Self:
        urls = (self.database_url, self.read_database_url or self.database_url)
        engines = {make_url(url).get_backend_name() for url in urls}
        if self.read_database_url is not None and engines != {"postgresql"}:
            raise ValueError(
                "MOVIE_READ_DATABASE_URL names replicas of a PostgreSQL database: "
                "it and MOVIE_DATABASE_URL must begin with postgresql://"
            )
        return self


SETTINGS = [f"{PREFIX}{field}".upper() for field in Settings.model_fields]


def stop(message: str) -> NoReturn:
    """End the program with a message, and with the exit code that stops uvicorn from restarting."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(STARTUP_FAILURE)


def load_settings() -> Settings:
    """Return the settings, or end the program with a line for each that is not valid."""
    problems = [
        f"{name} is not a setting. Did you mean {meant}?"
        for name, meant in unknown_names().items()
        if meant
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        problems += map(_explain, error.errors())
    if problems:
        stop("\n".join(problems))
    return settings


def unknown_names() -> dict[str, str | None]:
    """Return each MOVIE_ name that is not a setting, with the setting that it probably means."""
    return {
        name: _probable_setting(name)
        for name in (*os.environ, *_names_in_env_file())
        if _OWN_NAME.match(name) and name.upper() not in SETTINGS
    }


def _probable_setting(name: str) -> str | None:
    written = name.upper().replace("_", "")
    if "KEY" in written:
        return f"{PREFIX}API_KEY"  # a lost key would leave the service open
    near = (known for known in SETTINGS if _is_near(written, known.replace("_", ""), edits=2))
    return next(near, None)


def _is_near(written: str, meant: str, edits: int) -> bool:
    """Return whether at most that many edits turn one text into the other."""
    if not (written and meant and edits):
        return written == meant or len(written + meant) <= edits
    if written[0] == meant[0]:
        return _is_near(written[1:], meant[1:], edits)
    pairs = ((written[1:], meant), (written, meant[1:]), (written[1:], meant[1:]))
    return any(_is_near(*pair, edits - 1) for pair in pairs)


def _names_in_env_file() -> Iterator[str]:
    """Yield the names that .env sets, or end the program if it cannot be read."""
    path = Settings.model_config.get("env_file")
    if not isinstance(path, Path) or not os.path.lexists(path):
        return
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        stop(f"{path} cannot be read: {error.strerror}.")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # also what UTF-16 without a byte order mark looks like
        stop(f"{path} is not UTF-8 text. Save it with the encoding UTF-8.")
    for line in parse_stream(io.StringIO(text)):
        name = line.key or ""
        if line.value is not None and name.upper().startswith(PREFIX):
            yield name
            continue
        written = _NAME.findall(line.original.string if line.error else name)
        for lost in filter(_probable_setting, written):
            # Pydantic would skip the line, and an API key in it would protect nothing.
            stop(
                f"{lost} in {path} cannot be read. "
                f"Write {lost}=value on a separate line, with both quotation marks or none."
            )


def _explain(problem: ErrorDetails) -> str:
    """Return a line for an invalid setting, without its value, which may be secret."""
    if problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])
    else:
        reason = problem["msg"].replace("Input should be", "must be")
    # No name if the problem concerns several settings.
    name = [f"{PREFIX}{field}".upper() for field in problem["loc"][:1]]
    return f"{' '.join([*name, reason])}."

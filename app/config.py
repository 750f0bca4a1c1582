"""Settings, read from the environment and from .env."""

import re
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from uvicorn.config import STARTUP_FAILURE

PROJECT_ROOT = Path(__file__).resolve().parent.parent
LOCAL_DEV_SERVERS = [
    f"http://{host}:{port}" for port in (3000, 5173, 8501) for host in ("localhost", "127.0.0.1")
]


class Settings(BaseSettings):
    """The service's settings; each is an environment variable named ``MOVIE_`` + field.

    The prefix is on purpose: a ``DATABASE_URL`` that belongs to another program must never be
    migrated by this one.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOVIE_",
        env_file=PROJECT_ROOT / ".env",
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: str = Field(
        default="sqlite:///./movies.db",
        description="SQLite file or PostgreSQL. A relative file lies in the project's folder.",
    )
    auto_setup: bool = Field(
        default=True,
        description="Bring the schema to head at start-up; load starter movies if there are none.",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=LOCAL_DEV_SERVERS,
        description="Origins a browser may call from, separated by commas.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least severe log line that is written."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Plain lines, or one JSON object a line."
    )

    busy_timeout: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description=(
            "Seconds that a write waits for its turn, and then for the database's lock, "
            "before it is answered 503."
        ),
    )
    read_cache: bool = Field(
        default=True,
        description="Answer repeated reads from memory while nobody commits. SQLite only.",
    )

    api_key: SecretStr | None = Field(
        default=None,
        description="When set, a request that writes needs it in the header X-API-Key.",
    )
    max_body_bytes: int = Field(
        default=64 * 1024, ge=1024, description="A longer body is answered 413."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_on_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [origin.strip().rstrip("/") for origin in value.split(",") if origin.strip()]
        return value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces, and not empty")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _one_meaning_from_every_folder(cls, value: str) -> str:
        try:
            # The short form is what hosting services hand out.
            url = make_url(re.sub(r"^postgres://", "postgresql://", value))
        except ArgumentError:
            raise ValueError("must be a URL such as sqlite:///./movies.db") from None
        if "\0" in str(url.database):
            raise ValueError("must not contain a NUL character")
        match url.get_backend_name():
            case "sqlite":
                if url.database in (None, "", ":memory:"):
                    raise ValueError("must name a file: threads cannot share a database in memory")
                if url.query:
                    raise ValueError("must be a file's path alone, without options after '?'")
                # Commands run from any folder must mean the same database.
                path = PROJECT_ROOT / Path(str(url.database))
                url = url.set(drivername="sqlite", database=str(path))
                return url.render_as_string(hide_password=False)
            case "postgresql":
                url = url.set(drivername="postgresql+psycopg")
                return url.render_as_string(hide_password=False)
            case other:
                raise ValueError(f"must be sqlite or postgresql, not {other}")


def stop(message: str) -> NoReturn:
    """End the program with a message, in the way that makes uvicorn start no worker again."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(STARTUP_FAILURE)


def load_settings() -> Settings:
    """Return the settings, or end the program with a line for each that is not valid."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"MOVIE_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors()
        ]
        stop("\n".join(["Settings are not valid.", *lines]))

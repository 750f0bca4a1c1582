"""Databases, and the application on them.

Every test that asks for ``database_url`` runs on SQLite and, where MOVIE_TEST_POSTGRES_URL names a
server, once more on PostgreSQL. The schema comes from the migrations.
"""

import gc
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text
from sqlmodel import Session, SQLModel

from app.config import Settings
from app.db import create_db_engine
from app.main import create_app
from app.migrate import migrate_to_head
from app.repository import MovieRepository
from scripts import db
from tests import FOLDER
from tests.databases import ENGINES, new_database, new_postgresql
from tests.helpers import empty
from tests.server import Command, Finished

# A copy takes a millisecond, migrating takes fifty.
TEMPLATE = FOLDER / "template.db"
migrate_to_head(f"sqlite:///{TEMPLATE}")
# The database of app.main's own application. It is ready before any test file is imported, since
# a client at the top of one may send requests at once.
shutil.copy(TEMPLATE, FOLDER / "movies.db")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the longest tests to continuous integration, so that all others take a minute."""
    if "CI" not in os.environ:
        for item in items:
            if item.get_closest_marker("ci"):
                item.add_marker(pytest.mark.skip(reason="takes long: set CI=true to run it"))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the libraries: it need not look through them in every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _only_slow_tests_start_processes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the fast part of the suite fast: a process takes about a second to start."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("This test starts a process: mark it with @pytest.mark.slow")

    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """A migrated, empty SQLite file to copy."""
    return TEMPLATE


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of a migrated PostgreSQL database of this run's own, dropped at its end.

    It sorts text as an English dictionary does, unless told otherwise. On a server whose locale
    sorts by code point anyway, tests of the order would prove nothing.
    """
    locale = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
    with new_postgresql(locale) as url:
        migrate_to_head(url)
        yield url


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated, empty SQLite database."""
    path = tmp_path / "movies.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """A migrated, empty PostgreSQL database, for tests that only run where there is a server."""
    engine = create_engine(postgres_database)
    empty(engine)
    engine.dispose()
    return postgres_database


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database of each engine."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(name))


@pytest.fixture(params=ENGINES)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each engine that nobody has migrated: no file yet, or no tables."""
    with new_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def alembic_url(new_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database of each engine, which Alembic's commands are about."""
    monkeypatch.setenv("MOVIE_DATABASE_URL", new_url)
    return new_url


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder to run commands from, which is not the project's."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The service's engine on the test's database."""
    engine = create_db_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def sqlite_tables_of_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to copy, whose tables were made from the models' metadata."""
    path = tmp_path_factory.mktemp("tables_of_models") / "notebook.db"
    engine = create_engine(f"sqlite:///{path}")
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_tables_of_models(postgres_database: str) -> Iterator[Engine]:
    """A plain engine on a schema that was made from the models' metadata."""
    name = "tables_of_models"
    engine = create_engine(
        postgres_database, connect_args={"options": f"-c search_path={name}"}, pool_size=8
    )
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
        SQLModel.metadata.create_all(connection)
    yield engine
    engine.dispose()


@pytest.fixture(params=["service", "notebook"])
def any_engine(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Iterator[Engine]:
    """The service's engine on the migrated schema, or a plain one on tables made of the models."""
    if request.param == "service":
        engine = create_db_engine(database_url)
    elif database_url.startswith("sqlite"):
        path = shutil.copy(request.getfixturevalue("sqlite_tables_of_models"), tmp_path)
        engine = create_engine(f"sqlite:///{path}")
    else:
        engine = request.getfixturevalue("postgres_tables_of_models")
        empty(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session of the test's own, apart from the application's."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def repository(session: Session) -> MovieRepository:
    """A repository on the test's database."""
    return MovieRepository(session)


@pytest.fixture
def read_cache() -> bool:
    """Whether the service keeps responses; tests of reads run without, too."""
    return True


@pytest.fixture
def settings(database_url: str, *, read_cache: bool) -> Settings:
    """Settings that name the test's database and leave its catalogue empty."""
    return Settings(database_url=database_url, auto_setup=False, read_cache=read_cache)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application on the test's database."""
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the running application. An error that nobody handled is a 500, as for users."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``scripts/db.py`` on a database, in this process."""
    # Another test may have set up the service's logs here, which the script never does.
    monkeypatch.setattr(logging.getLogger("app"), "disabled", True)

    def run(database_url: str, *arguments: str | Path) -> Finished:
        monkeypatch.setenv("MOVIE_DATABASE_URL", database_url)
        monkeypatch.setattr(sys, "argv", ["db.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            db.main()
        output, errors = capsys.readouterr()
        assert isinstance(ending.value.code, int)
        return Finished(ending.value.code, output, errors)

    return run

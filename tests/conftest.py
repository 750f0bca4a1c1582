"""Databases, and the application on them.

Every test that asks for ``database_url`` runs on SQLite and, if MOVIE_TEST_POSTGRES_URL names a
server, also on PostgreSQL. The schema comes from the migrations.
"""

import gc
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text
from sqlmodel import Session, SQLModel

from app.config import Settings
from app.db import migrate
from app.repository import MovieRepository
from scripts import db
from tests.databases import ENGINES, new_database, new_postgresql
from tests.helpers import empty
from tests.isolation import FOLDER, TEMPLATE
from tests.server import Command, Finished
from tests.shared import shared_application, shared_engine

TESTS = Path(__file__).parent
# The folders of the tests of the core: app/*.py and app/routes/.
CORE = {TESTS, TESTS / "routes"}
# Links to the folder of the running test's database.
CURRENT = FOLDER / "current"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the option
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Start several processes if the whole suite runs.

    A part of it, such as one file, ends sooner in one process: each process starts for seconds.
    The fixtures below give each test its own database. A conftest that replaces this one may use
    one file for all tests, so without this function everything runs in one process.
    """
    options = config.option
    folders = [(config.invocation_params.dir / argument).resolve() for argument in config.args]
    is_whole = any(map(TESTS.is_relative_to, folders))
    is_part = options.markexpr or options.keyword or options.usepdb
    is_worker = hasattr(config, "workerinput")
    if options.numprocesses is None and is_whole and not is_part and not is_worker:
        options.numprocesses = min(os.cpu_count() or 1, 4)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the folders of slow tests with -m "not slow": importing their files takes seconds."""
    is_slow = TESTS in collection_path.parents and collection_path.is_dir()
    if config.option.markexpr == "not slow" and is_slow and collection_path not in CORE:
        return True
    return None


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests outside the core as slow, and leave the longest to continuous integration."""
    for item in items:
        if item.path.parent not in CORE:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("ci") and "CI" not in os.environ:
            reason = "takes long, or needs a browser or a cluster: CI=true uv run pytest"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Exclude the libraries from garbage collection, which would visit them in every test."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how to run the tests that were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.fixture(autouse=True)
def _only_slow_tests_start_processes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail fast tests that start a process, which takes about a second."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("This test starts a process: mark it with @pytest.mark.slow")

    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """Return a migrated, empty SQLite file to copy."""
    return TEMPLATE


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """Yield the URL of a migrated PostgreSQL database, dropped at the end of the run.

    By default it sorts text as an English dictionary does. On a server whose locale sorts by code
    point, tests of the order would prove nothing.
    """
    locale = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
    with new_postgresql(locale) as url:
        migrate(url)
        yield url


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """Return a migrated, empty SQLite database, ``movies.db`` in the test's folder.

    The URL is the same for every test, because applications and engines are bound to a URL and
    tests share them: see tests/shared.py.
    """
    shutil.copy(sqlite_template, tmp_path / "movies.db")
    CURRENT.unlink(missing_ok=True)
    CURRENT.symlink_to(tmp_path, target_is_directory=True)
    return f"sqlite:///{CURRENT / 'movies.db'}"


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """Return a migrated, empty PostgreSQL database. Skips the test if there is no server."""
    engine = create_engine(postgres_database)
    empty(engine)
    engine.dispose()
    return postgres_database


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest) -> str:
    """Return a migrated, empty database of each engine."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(name))


@pytest.fixture(params=ENGINES)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield a database of each engine without a schema: no file yet, or no tables."""
    with new_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def alembic_url(new_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a new database of each engine, to which Alembic's commands apply."""
    monkeypatch.setenv("MOVIE_DATABASE_URL", new_url)
    return new_url


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return an empty folder outside the project, to run commands from."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Yield the service's engine on the test's database."""
    with shared_engine(database_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def sqlite_tables_of_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file to copy, with tables created from the models' metadata."""
    path = tmp_path_factory.mktemp("tables_of_models") / "notebook.db"
    engine = create_engine(f"sqlite:///{path}")
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_tables_of_models(postgres_database: str) -> Iterator[Engine]:
    """Yield a plain engine on tables created from the models' metadata."""
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
    """Yield the service's engine on the migrated schema, or a plain one on the models' tables."""
    if request.param == "service":
        with shared_engine(database_url) as engine:
            yield engine
        return
    if database_url.startswith("sqlite"):
        path = shutil.copy(request.getfixturevalue("sqlite_tables_of_models"), tmp_path)
        engine = create_engine(f"sqlite:///{path}")
    else:
        engine = request.getfixturevalue("postgres_tables_of_models")
        empty(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """Yield a session that the application does not use."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def repository(session: Session) -> MovieRepository:
    """Return a repository on the test's database."""
    return MovieRepository(session)


@pytest.fixture
def read_cache() -> bool:
    """Return whether the service caches reads; tests of reads also run without the cache."""
    return True


@pytest.fixture
def settings(database_url: str, *, read_cache: bool) -> Settings:
    """Return settings that name the test's database and leave its catalogue empty."""
    return Settings(database_url=database_url, auto_setup=False, read_cache=read_cache)


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    """Yield the application on the test's database."""
    with shared_application(settings) as app:
        yield app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Yield a client of the running application. An unexpected error is a 500, as for users."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``scripts/db.py`` on a database, in this process."""
    # Another test may have set up the service's logs; the script never does.
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

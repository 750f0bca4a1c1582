"""The commands work alone and from any folder, and explain errors in a line or two."""

import logging
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import main as run_alembic
from sqlalchemy import create_engine, text
from sqlmodel import Session

from app.config import PROJECT_ROOT
from app.db import create_db_engine, migrate
from app.repository import MovieRepository
from app.startup import STARTER_MOVIES
from tests.rows import contents
from tests.server import Commands, Finished, copy_of_project

Run = Callable[..., Finished]
UNREACHABLE = "postgresql://postgres:secret@127.0.0.1:1/movies"
STARTER_TITLES = {movie.title for movie in STARTER_MOVIES}


@pytest.fixture
def run(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which is ten times as fast as starting one.

    ``run(url, "alembic", "check")`` calls the installed command's function, ``run(url, "db.py",
    "check")`` runs the script.
    """
    monkeypatch.chdir(elsewhere)
    # The service's log handler of an earlier test has a closed stream.
    monkeypatch.setattr(logging.getLogger("app"), "handlers", [])

    def run(url: str, program: str, *arguments: str) -> Finished:
        monkeypatch.setenv("MOVIE_DATABASE_URL", url)
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        capfd.readouterr()
        exit_code: object = 0
        try:
            if program == "alembic":
                run_alembic(["-c", str(PROJECT_ROOT / "alembic.ini"), *arguments])
            else:
                runpy.run_path(str(PROJECT_ROOT / "scripts" / program), run_name="__main__")
        except SystemExit as ending:
            exit_code = ending.code
        if isinstance(exit_code, str):
            print(exit_code, file=sys.stderr)  # noqa: T201 - as Python does at exit
            exit_code = 1
        assert isinstance(exit_code, int)
        captured = capfd.readouterr()
        return Finished(exit_code, captured.out, captured.err)

    return run


def execute(url: str, statement: str) -> None:
    """Run a statement outside the service, with foreign keys off on SQLite."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def titles(url: str) -> set[str]:
    """Return the titles in a catalogue."""
    engine = create_db_engine(url)
    with Session(engine) as session:
        found = {movie.title for movie in MovieRepository(session).list()}
    engine.dispose()
    return found


def rate(url: str) -> None:
    """Store a movie with a rating."""
    engine = create_db_engine(url)
    with Session(engine) as session:
        repository = MovieRepository(session)
        repository.add_rating(repository.create(title="Heat", year=1995).id, 5, 1)
    engine.dispose()


def files(folder: Path) -> dict[str, bytes | None]:
    """Return the paths in a folder, with the content of each file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


ALL_TABLES = {"alembic_version", "movie", "movie_genre", "movie_word", "neighbour", "rating"}
# The output of a command on a new database, and the tables afterwards. Alembic writes to the stream
# that was current when it was imported, so the test does not see it.
ON_A_NEW_DATABASE = {
    "alembic upgrade head": ("", ALL_TABLES),
    "alembic downgrade -1": ("", ALL_TABLES - {"movie_word"}),
    "alembic downgrade base": ("", {"alembic_version"}),
    "alembic check": ("", ALL_TABLES),
    "alembic current": ("", set()),
    "db.py migrate": ("Database ready\n", ALL_TABLES),
    "db.py seed": ("Added 5 of 5 starter movies\n", ALL_TABLES),
}


@pytest.mark.parametrize("command", ON_A_NEW_DATABASE)
def test_every_command_works_on_a_new_database(command: str, new_url: str, run: Run) -> None:
    output, tables = ON_A_NEW_DATABASE[command]

    assert run(new_url, *command.split()) == Finished(0, output, "")
    assert set(contents(new_url)[1]) == tables


@pytest.mark.slow
@pytest.mark.ci
def test_commands_in_another_folder_use_the_database_of_the_project(
    tmp_path: Path, elsewhere: Path
) -> None:
    project = copy_of_project(tmp_path / "project")
    commands = Commands(elsewhere, project)

    checked = commands.alembic("check")
    (project / ".env").write_text("MOVIE_DATABASE_URL=sqlite:///./from_env_file.db\n")
    seeded = commands.database("seed")

    assert checked == Finished(0, "No new upgrade operations detected.\n", "")
    assert seeded == Finished(0, "Added 5 of 5 starter movies\n", "")
    # SQLite removes the files beside a database when its last connection is closed.
    assert sorted(path.name for path in project.glob("*.db*")) == ["from_env_file.db", "movies.db"]
    assert files(elsewhere) == {}


def test_seeding_again_adds_only_what_is_missing(new_url: str, run: Run) -> None:
    run(new_url, "db.py", "seed")
    assert titles(new_url) == STARTER_TITLES
    assert run(new_url, "db.py", "seed").output == "Added 0 of 5 starter movies\n"
    for table in ("movie_genre", "movie_word"):
        execute(new_url, f"DELETE FROM {table} WHERE movie_id = 1")  # noqa: S608 - fixed names
    execute(new_url, "DELETE FROM movie WHERE title = 'Inception'")
    rate(new_url)

    finished = run(new_url, "db.py", "seed")

    assert finished.output == "Added 1 of 5 starter movies\n"
    assert titles(new_url) == STARTER_TITLES | {"Heat"}
    assert run(new_url, "db.py", "check") == Finished(0, "Database sound\n", "")


def test_check_names_a_missing_file_and_creates_none(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "none.db"

    finished = run(f"sqlite:///{path}", "db.py", "check")

    assert finished == Finished(
        1, "", f"There is no database at {path}.\nRun: uv run python scripts/db.py migrate\n"
    )
    assert not path.exists()


def test_check_names_a_schema_that_is_behind(new_url: str, run: Run) -> None:
    run(new_url, "alembic", "downgrade", "-1")

    finished = run(new_url, "db.py", "check")

    assert finished.exit_code == 1
    assert finished.errors.endswith("\nRun: uv run alembic upgrade head\n")
    assert finished.errors.startswith("The database's schema is at ")
    run(new_url, "alembic", "upgrade", "head")
    assert run(new_url, "db.py", "check").exit_code == 0


def test_check_names_wrong_aggregates_and_rows_without_their_movie(
    sqlite_url: str, run: Run
) -> None:
    rate(sqlite_url)
    reasons = {
        "UPDATE movie SET rating_sum = 4": (
            "movie 1 (Heat): the rating aggregates differ from its ratings\n"
        ),
        "DELETE FROM movie": (
            "movie_genre: 1 row(s) whose movie_id is of no movie, the first with movie_id 1\n"
            "movie_word: 1 row(s) whose movie_id is of no movie, the first with word heat\n"
            "rating: 1 row(s) whose movie_id is of no movie, the first with id 1\n"
        ),
    }

    for corruption, reason in reasons.items():
        execute(sqlite_url, corruption)
        assert run(sqlite_url, "db.py", "check") == Finished(1, "", reason)


def test_check_names_differences_between_the_schema_and_the_models(new_url: str, run: Run) -> None:
    migrate(new_url)
    execute(new_url, "DROP INDEX ix_movie_year_id")
    execute(new_url, "ALTER TABLE rating RENAME COLUMN created_at TO made_at")

    finished = run(new_url, "db.py", "check")

    assert finished.exit_code == 1
    assert finished.output == ""
    assert [line.partition(";")[0] for line in finished.errors.splitlines()] == [
        "movie: index ix_movie_year_id is missing",
        "rating: column created_at is missing",
        "rating: column made_at is not in the models",
    ]


COMMANDS = [
    ("alembic", "upgrade", "head"),
    ("alembic", "downgrade", "-1"),
    ("alembic", "check"),
    ("db.py", "migrate"),
    ("db.py", "seed"),
    ("db.py", "check"),
]


def assert_plain(finished: Finished, *parts: str) -> None:
    """Check that a command failed, with a reason of one or two lines."""
    assert finished.exit_code != 0
    # Alembic writes its errors to standard output.
    written = finished.output + finished.errors
    lines = written.splitlines()
    assert 1 <= len(lines) <= 2, written
    assert all(0 < len(line) < 250 for line in lines)
    assert "Traceback" not in written
    for part in parts:
        assert part in written


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("sqlite:///{folder}/notes.db", ["{folder}/notes.db is not a SQLite database"]),
        ("sqlite:///{folder}/nowhere/movies.db", ["{folder}/nowhere/movies.db"]),
        ("sqlite:///{folder}", ["{folder}"]),
        (UNREACHABLE, ["127.0.0.1:1/movies", "MOVIE_DATABASE_URL"]),
        (
            "mysql://root:secret@127.0.0.1/movies",
            ["MOVIE_DATABASE_URL must be sqlite or postgresql, not mysql."],
        ),
    ],
    ids=["not a database", "no folder", "a folder", "no answer", "not a valid setting"],
)
def test_every_command_explains_an_unusable_database_in_a_line_or_two(
    url: str, parts: list[str], tmp_path: Path, run: Run
) -> None:
    (tmp_path / "notes.db").write_text("These are notes, and no database.\n" * 50)
    before = files(tmp_path)

    for command in COMMANDS:
        finished = run(url.format(folder=tmp_path), *command)

        assert_plain(finished, *(part.format(folder=tmp_path) for part in parts))
        assert "secret" not in finished.output + finished.errors
        assert files(tmp_path) == before


def test_every_command_names_a_newer_version_and_changes_nothing(new_url: str, run: Run) -> None:
    migrate(new_url)
    rate(new_url)
    execute(new_url, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = contents(new_url)

    for command in COMMANDS:
        assert_plain(run(new_url, *command), "ffffffffffff", "newer version")
    assert contents(new_url) == before


@pytest.mark.slow
@pytest.mark.ci
def test_error_of_a_process_has_no_traceback(tmp_path: Path, elsewhere: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("These are notes, and no database.\n" * 50)
    commands = Commands(elsewhere, database_url=f"sqlite:///{path}")
    explanation = (
        f"{path} is not a SQLite database. Nothing was changed.\n"
        "Name another file in MOVIE_DATABASE_URL.\n"
    )

    assert commands.alembic("upgrade", "head") == Finished(255, f"FAILED: {explanation}", "")


def test_alembic_refuses_to_write_sql_without_a_database(tmp_path: Path, run: Run) -> None:
    finished = run(f"sqlite:///{tmp_path / 'none.db'}", "alembic", "upgrade", "head", "--sql")

    assert finished.exit_code != 0
    assert finished.output == (
        "FAILED: --sql is not supported, because migrations read the database that they change.\n"
    )
    assert not (tmp_path / "none.db").exists()


def test_script_without_a_command_lists_its_commands(tmp_path: Path, run: Run) -> None:
    finished = run(f"sqlite:///{tmp_path / 'none.db'}", "db.py")

    for command in ("migrate", "seed", "check"):
        assert command in finished.output + finished.errors
    assert not (tmp_path / "none.db").exists()


def test_bench_starts_in_any_folder_and_lists_its_options(elsewhere: Path, run: Run) -> None:
    finished = run("sqlite:///movies.db", "bench", "--help")

    assert finished.exit_code == 0
    assert "movielens" in finished.output
    assert files(elsewhere) == {}

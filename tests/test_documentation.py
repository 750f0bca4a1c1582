"""The documentation is right: its commands are run, its tables are compared with the code."""

import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import uvicorn
from sqlalchemy import create_engine
from sqlmodel import SQLModel
from typer.main import get_group

from app.config import PROJECT_ROOT, Settings, load_settings
from app.main import create_app
from scripts.db import cli
from tests.documentation import (
    DOCS,
    PAGES,
    Step,
    anchors,
    code,
    commands,
    links,
    name_of,
    section,
    steps,
    text_of,
)
from tests.helpers import Sample, movie_row, movie_rows
from tests.server import Command, Commands, copy_with_tests, serving

# Commands that are not run here, each with the reason. All others are run.
NOT_RUN = {
    r"git clone ": "needs the repository's address",
    r"(\w+=\S+ )*uv run uvicorn ": "test_every_option_of_uvicorn_exists parses it",
    r"uv run pytest": "runs this suite, or the file that test_the_first_test_passes_as_typed runs",
    r"uv sync --extra ": "test_every_extra_exists checks the name",
    r"uvx |npx ": "downloads a program",
    r"psql |pg_basebackup ": "needs several servers: test_replicas.py and test_failover.py do this",
    r"MOVIE_APIKEY=": "test_a_misspelled_setting_is_refused_as_the_readme_shows runs it",
    r"export MOVIE_": "sets a variable for commands that are not run",
    r"uv run .*(import-movielens ml-latest-small|train)$": "needs MovieLens data: "
    "test_the_numbers_for_ml_latest_small_are_right",
}
# Python blocks that are not run here, each with the reason: what they contain.
NOT_INSTALLED = {"pandas": "not installed", "polars": "not installed", "lenskit": "not installed"}
SCRIPT = "uv run python scripts/db.py "
MOVIELENS = os.environ.get("MOVIE_TEST_MOVIELENS", "")
README_MAX_LINES, README_MAX_BYTES, PICTURE_MAX_BYTES = 200, 14_000, 200_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")
def test_every_command_has_the_output_that_its_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    database_url = f"sqlite:///{tmp_path / 'movies.db'}"

    def output_of(step: Step, url: str = "") -> str:
        if step.command.startswith(SCRIPT):
            arguments = shlex.split(step.command.removeprefix(SCRIPT))
            finished = command(database_url, *arguments)
            exit_code, output = finished.exit_code, finished.output + finished.errors
        else:
            line = step.command.replace("http://localhost:8000", url).replace("localhost:8000", url)
            shell = subprocess.run(  # noqa: S603 - the commands on the page
                ["bash", "-c", line],  # noqa: S607
                capture_output=True,
                text=True,
                check=False,
            )
            exit_code, output = shell.returncode, shell.stdout.replace("\r", "")
        # A page may leave out what a command prints if it succeeds.
        assert exit_code == 0 or step.output, (step, output)
        return output.rstrip("\n") if step.output else ""

    every = [step for page in PAGES for step in steps(name_of(page))]
    run = [step for step in every if not any(re.match(unsafe, step.command) for unsafe in NOT_RUN)]
    # Restoring needs the server stopped.
    restores = [step for step in run if " restore " in step.command]
    with serving(create_app(Settings(database_url=database_url))) as server:
        found = [
            step._replace(output=output_of(step, server.url))
            for step in run
            if step not in restores
        ]
    found += [step._replace(output=output_of(step)) for step in restores]

    assert len(found) >= 20
    for step in found:
        assert step in run, "write the present output into the page"


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_exception_is_still_needed(pattern: str) -> None:
    every = [step.command for page in PAGES for step in steps(name_of(page))]

    assert any(re.match(pattern, command) for command in every), "remove it from NOT_RUN"


@pytest.mark.slow
def test_starting_over_leaves_the_starter_movies(tmp_path: Path) -> None:
    [remove] = re.findall(r"run `(rm [^`]+)`", text_of("README.md"))
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'movies.db'}")

    def movies() -> int:
        with serving(create_app(settings)) as server, server.client() as client:
            client.post("/movies", json={"title": "Arrival", "year": 2016})
            return len(client.get("/movies").json())

    first = movies()
    # A crash leaves the -wal.
    (tmp_path / "movies.db-wal").touch()
    subprocess.run(["bash", "-c", remove], cwd=tmp_path, check=True)  # noqa: S603, S607 - as above

    assert list(tmp_path.iterdir()) == []
    assert movies() == first


# A notebook closes its connections when it ends.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_the_notebook_examples_run_as_typed(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = code("python", section("docs/architecture.md", "Transactions"))
    monkeypatch.chdir(tmp_path)  # where the fixture has put movies.db

    exec("".join(blocks), {})  # noqa: S102 - the commands on the page

    gc.collect()  # here, and not in a later test
    engine = create_engine(sqlite_url)
    assert movie_rows(engine) == [movie_row(1, Sample("Arrival", 2016, "Sci-Fi", (5,)))]
    engine.dispose()


@pytest.mark.slow
@pytest.mark.ci
def test_the_first_test_passes_as_typed_and_cannot_touch_a_real_database(tmp_path: Path) -> None:
    project = copy_with_tests(tmp_path)
    [block] = code("python", section("docs/contributing.md", "Write a test"))
    (project / "tests" / "test_arrival.py").write_text(block)
    shell = Commands(project, project, database_url=f"sqlite:///{project / 'movies.db'}")

    finished = shell.python("-m", "pytest", "tests/test_arrival.py")

    assert finished.exit_code == 0, finished.output + finished.errors
    assert "1 passed" in finished.output
    assert list(project.rglob("*.db*")) == []


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("style", [0, 1], ids=["override", "engine"])
def test_a_conftest_of_the_course_works_and_cannot_touch_a_real_database(
    tmp_path: Path, style: int
) -> None:
    project = copy_with_tests(tmp_path)
    *conftests, test, _notebook = code(
        "python", section("docs/contributing.md", "Coming from the course")
    )
    (project / "tests" / "conftest.py").write_text(conftests[style])
    (project / "tests" / "test_course.py").write_text(test)
    shell = Commands(project, project, database_url=f"sqlite:///{project / 'movies.db'}")

    finished = shell.python("-m", "pytest", "tests/test_course.py")

    assert finished.exit_code == 0, finished.output + finished.errors
    assert "1 passed" in finished.output
    assert not (project / "movies.db").exists()


def test_ratings_are_loaded_in_a_notebook_as_the_course_page_shows(
    sqlite_url: str,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notebook = code("python", section("docs/contributing.md", "Coming from the course"))[-1]
    assert command(sqlite_url, "seed").exit_code == 0
    engine = create_engine(sqlite_url)
    monkeypatch.setattr("app.db.engine", engine)

    exec(notebook, {})  # noqa: S102 - the commands on the page

    engine.dispose()
    assert "The Matrix []" in capsys.readouterr().out.splitlines()


def test_every_python_block_is_run_or_needs_a_package_that_is_not_installed() -> None:
    run = [
        *code("python", section("docs/architecture.md", "Transactions")),
        *code("python", section("docs/contributing.md", "Write a test")),
        *code("python", section("docs/contributing.md", "Coming from the course")),
    ]
    every = [block for page in PAGES for block in code("python", text_of(name_of(page)))]

    others = [block for block in every if block not in run]

    imported = {
        name
        for block in others
        for name in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)
    }
    assert imported & NOT_INSTALLED.keys() == NOT_INSTALLED.keys()
    assert all(any(name in block for name in NOT_INSTALLED) for block in others)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.skipif(
    not MOVIELENS, reason="needs MovieLens: MOVIE_TEST_MOVIELENS=ml-latest-small uv run pytest"
)
def test_the_numbers_for_ml_latest_small_are_right(tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'movies.db'}"
    shell = Commands(tmp_path, database_url=database_url)

    def rows(text: str) -> list[list[str]]:
        cells = [re.split(r" *[│|] *", line.strip("│| ")) for line in text.splitlines()]
        return [row for row in cells if len(row) > 1 and row[0] not in {"seconds", "peak memory"}]

    imported = shell.database("import-movielens", MOVIELENS)
    trained = shell.database("train")
    [table] = code("text", section("docs/import-export.md", "Import"))
    [training] = code("text", text_of("docs/recommendations.md"))
    similar = rows(section("docs/recommendations.md", "How it works"))[2:]

    assert [row for row in rows(imported.output) if row[0][0] != "─"] == rows(table)
    assert rows(trained.output)[-3:] == rows(training)
    assert len(similar) == 3
    service = create_app(Settings(database_url=database_url))
    with serving(service) as server, server.client() as client:
        for title, expected in similar:
            [movie] = client.get("/movies", params={"q": title}).json()
            found = client.get(f"/movies/{movie['id']}/similar", params={"limit": 5}).json()
            assert "; ".join(item["title"] for item in found) == expected


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_every_page_says_first_who_needs_it_and_is_linked_from_the_readme(page: Path) -> None:
    _title, _, first, *_ = page.read_text(encoding="utf-8").splitlines()

    assert first.startswith("For ")
    assert name_of(page) in [link.partition("#")[0] for link in links(PROJECT_ROOT / "README.md")]


def test_the_front_page_and_its_picture_stay_small() -> None:
    readme = (PROJECT_ROOT / "README.md").read_bytes()

    assert len(readme.splitlines()) <= README_MAX_LINES
    assert len(readme) <= README_MAX_BYTES
    assert (DOCS / "page.png").stat().st_size <= PICTURE_MAX_BYTES


def test_every_setting_is_in_the_readme_and_the_example_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(MOVIE_\w+)` \| (.*?) \|", section("README.md", "Settings"), re.MULTILINE)
    )
    example = (PROJECT_ROOT / ".env.example").read_text()
    names = {f"MOVIE_{name.upper()}": field for name, field in Settings.model_fields.items()}

    hint = "a new setting is added to the table in 'Settings' and to .env.example"
    assert set(rows) == set(names), hint
    assert set(re.findall(r"^#? ?(MOVIE_\w+)=", example, re.MULTILINE)) == set(names), hint
    for name, field in names.items():
        if isinstance(field.default, bool | int | float):
            assert json.loads(rows[name].strip("`")) == field.default
        elif isinstance(field.default, str):
            assert rows[name] == f"`{field.default}`"


def test_the_example_contains_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")
    defaults = Settings()
    for line in (PROJECT_ROOT / ".env.example").read_text().splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", maxsplit=1))

    assert Settings() == defaults


def test_a_misspelled_setting_is_refused_as_the_readme_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [step] = [step for step in steps("README.md") if "MOVIE_APIKEY" in step.command]
    monkeypatch.setenv(*step.command.split()[0].split("="))

    with pytest.raises(SystemExit):
        load_settings()

    assert capsys.readouterr().err == f"{step.output}\n"


def test_every_route_is_in_the_readme_with_its_status(sqlite_url: str) -> None:
    rows = re.findall(r"^\| `(\w+) (/\S*)` \| (\d+)", section("README.md", "The API"), re.MULTILINE)
    documented = {
        (method, path.replace("{id}", "{movie_id}")): status for method, path, status in rows
    }
    paths = create_app(Settings(database_url=sqlite_url)).openapi()["paths"]
    responses = {
        (method.upper(), path): operation["responses"]
        for path, operations in paths.items()
        for method, operation in operations.items()
    }

    assert documented.keys() == responses.keys(), (
        "a new operation is added to the table in 'The API'"
    )
    for route, status in documented.items():
        assert status in responses[route]


def test_every_column_is_in_the_diagram() -> None:
    entities = re.findall(
        r"^    (\w+) \{\n(.*?)^    \}",
        text_of("docs/contracts/data-model.md"),
        re.DOTALL | re.MULTILINE,
    )
    documented = {
        name.lower(): re.findall(r"^ +\w+ (\w+)", columns, re.MULTILINE)
        for name, columns in entities
    }

    assert documented == {
        name: list(table.columns.keys()) for name, table in SQLModel.metadata.tables.items()
    }, "a new column is added to the diagram, in the order of the model"


def test_every_command_of_the_script_is_documented() -> None:
    commands = get_group(cli).list_commands(None)  # type: ignore[arg-type] # it needs no context
    documented = re.findall(r"scripts/db\.py ([a-z-]+)", section("docs/hosting.md", "Commands"))

    assert set(documented) == set(commands), (
        "a new command is added to the table 'Commands' in docs/hosting.md"
    )


def test_every_command_of_the_environment_starts_with_uv_run() -> None:
    programs = re.compile(r"(uvicorn|alembic|pytest|coverage|python|\S*scripts/db\.py) ")

    assert [command for command in commands() if programs.match(command)] == []


def test_every_option_of_uvicorn_exists() -> None:
    calls = [
        shlex.split(command.partition("uvicorn ")[2])
        for command in commands()
        if "uv run uvicorn " in command
    ]

    hosts = [uvicorn.main.make_context("uvicorn", call).params["host"] for call in calls]

    assert {"127.0.0.1", "0.0.0.0"} == set(hosts)  # noqa: S104 - served to others on purpose


def test_every_package_is_documented_with_its_purpose() -> None:
    pyproject = (PROJECT_ROOT / "pyproject.toml").read_text()
    packages = set(re.findall(r'^    "([a-z0-9-]+)(?:\[\w+\])?>=', pyproject, re.MULTILINE))
    documented = re.findall(
        r"[a-z0-9-]+",
        " ".join(
            row.split("|")[1]
            for row in section("docs/contributing.md", "Packages").splitlines()
            if "|" in row
        ),
    )

    assert packages <= set(documented), (
        "a new package is added to 'Packages' in docs/contributing.md"
    )


def test_every_promise_names_an_existing_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of("docs/guarantees.md"))

    assert named
    for file, test in named:
        assert f"def {test}(" in (PROJECT_ROOT / file).read_text(), test


def test_the_changelog_begins_with_this_version() -> None:
    pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    versions = re.findall(r"^## ([0-9.]+)", text_of("CHANGELOG.md"), re.MULTILINE)

    assert versions[0] == pyproject["project"]["version"]


def test_every_extra_exists() -> None:
    pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    named = {name for line in commands() for name in re.findall(r"--extra (\w+)", line)}
    groups = {name for line in commands() for name in re.findall(r"--group (\w+)", line)}

    assert named == set(pyproject["project"]["optional-dependencies"])
    assert groups <= set(pyproject["dependency-groups"])

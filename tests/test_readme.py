"""The README says what is so: its tour is run, its tables are compared with the code."""

import gc
import json
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
from tests.helpers import Sample, movie_row, movie_rows
from tests.server import Commands, copy_of_project, serving

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text under a heading of the second level."""
    pattern = rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, README, re.DOTALL | re.MULTILINE)
    assert found, f"no section {title}"
    return found[1]


def console_steps(text: str) -> list[tuple[str, str]]:
    """Return the commands of a text's console blocks, each with the output that follows it."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    steps = [step for block in blocks for step in block.split("$ ")[1:]]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is typed with curl")
def test_the_tour_gets_the_answers_that_the_readme_shows(tmp_path: Path) -> None:
    steps = console_steps(section("A tour with curl"))
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'movies.db'}")
    with serving(create_app(settings)) as server:
        answers = [
            subprocess.run(  # noqa: S603 - what the README tells to type
                ["bash", "-c", command.replace("localhost:8000", server.url)],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
            ).stdout.replace("\r", "")
            for command, _ in steps
        ]

    assert len(steps) >= 7
    assert [answer.rstrip("\n") for answer in answers] == [
        output.rstrip("\n") for _, output in steps
    ], "what the API answers now is written into the tour"


# A notebook closes its connections when it ends.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_the_notebook_examples_run_as_typed(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", section("How a request travels"), re.DOTALL)
    monkeypatch.chdir(tmp_path)  # where the fixture has put movies.db

    exec("".join(code), {})  # noqa: S102 - what the README tells to type

    gc.collect()  # here, and not in a later test
    engine = create_engine(sqlite_url)
    assert movie_rows(engine) == [movie_row(1, Sample("Arrival", 2016, "Sci-Fi", (5,)))]
    engine.dispose()


@pytest.mark.slow
@pytest.mark.ci
def test_the_first_test_passes_as_typed_and_cannot_touch_a_real_database(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    shutil.copytree(
        PROJECT_ROOT / "tests", project / "tests", ignore=shutil.ignore_patterns("test_*.py")
    )
    [code] = re.findall(r"```python\n(.*?)```", section("Write a test"), re.DOTALL)
    (project / "tests" / "test_arrival.py").write_text(code)
    (project / ".env").write_text("MOVIE_API_KEY=secret\n")
    commands = Commands(project, project, database_url=f"sqlite:///{project / 'movies.db'}")

    finished = commands.python("-m", "pytest", "tests/test_arrival.py", "--numprocesses=0")

    assert finished.exit_code == 0, finished.output + finished.errors
    assert "1 passed" in finished.output
    assert list(project.rglob("*.db*")) == []


def test_every_setting_is_in_the_readme_and_the_example_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(MOVIE_\w+)` \| (.*?) \|", section("Settings"), re.MULTILINE))
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


def test_the_example_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOVIE_DATABASE_URL")
    defaults = Settings()
    for line in (PROJECT_ROOT / ".env.example").read_text().splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", maxsplit=1))

    assert Settings() == defaults


def test_a_misspelled_setting_is_refused_as_the_readme_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((command, output),) = console_steps(section("Settings"))
    monkeypatch.setenv(*command.split()[0].split("="))

    with pytest.raises(SystemExit):
        load_settings()

    assert capsys.readouterr().err == output


def test_every_route_is_in_the_readme_with_its_status(sqlite_url: str) -> None:
    rows = re.findall(r"^\| `(\w+) (/\S*)` \| (\d+)", section("The API"), re.MULTILINE)
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


def test_every_column_is_in_the_diagram_of_the_readme() -> None:
    entities = re.findall(
        r"^    (\w+) \{\n(.*?)^    \}", section("The data"), re.DOTALL | re.MULTILINE
    )
    documented = {
        name.lower(): re.findall(r"^ +\w+ (\w+)", columns, re.MULTILINE)
        for name, columns in entities
    }

    assert documented == {
        name: list(table.columns.keys()) for name, table in SQLModel.metadata.tables.items()
    }, "a new column is added to the diagram in 'The data', in the order of the model"


def test_every_command_of_the_script_is_in_the_readme() -> None:
    commands = get_group(cli).list_commands(None)  # type: ignore[arg-type] # it needs no context
    documented = re.findall(r"scripts/db\.py ([a-z-]+)", section("Commands"))

    assert set(documented) == set(commands), "a new command is added to the table in 'Commands'"


def commands_in_the_readme() -> list[str]:
    """Return whatever the README tells to type, in console blocks and within sentences."""
    typed = [command for command, _ in console_steps(README)]
    return typed + [code for code in re.findall(r"`([^`\n]+)`", README) if " " in code]


def test_every_command_of_the_environment_starts_with_uv_run() -> None:
    programs = re.compile(r"(uvicorn|alembic|pytest|coverage|python|\S*scripts/db\.py) ")

    assert [command for command in commands_in_the_readme() if programs.match(command)] == []


def test_every_option_of_uvicorn_in_the_readme_exists() -> None:
    calls = [
        shlex.split(command.partition("uvicorn ")[2])
        for command in commands_in_the_readme()
        if "uv run uvicorn " in command
    ]

    hosts = [uvicorn.main.make_context("uvicorn", call).params["host"] for call in calls]

    assert {"127.0.0.1", "0.0.0.0"} == set(hosts)  # noqa: S104 - served to others on purpose


def test_every_package_is_in_the_readme_with_what_it_is_for() -> None:
    pyproject = (PROJECT_ROOT / "pyproject.toml").read_text()
    packages = set(re.findall(r'^    "([a-z0-9-]+)(?:\[\w+\])?>=', pyproject, re.MULTILINE))
    documented = re.findall(
        r"[a-z0-9-]+",
        " ".join(
            row.split("|")[1]
            for row in section("What each package is for").splitlines()
            if "|" in row
        ),
    )

    assert packages <= set(documented), "a new package is added to 'What each package is for'"


def test_every_promise_names_a_test_that_there_is() -> None:
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", README)

    assert named
    for file, test in named:
        assert f"def {test}(" in (PROJECT_ROOT / file).read_text(), test


def test_the_changelog_begins_with_this_version() -> None:
    pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    versions = re.findall(r"^\*\*([0-9.]+)\*\*", section("Changelog"), re.MULTILINE)

    assert versions[0] == pyproject["project"]["version"]

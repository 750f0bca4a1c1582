"""Fuzzing with schemathesis: no 5xx, and every response is documented.

The suite has a short run. MOVIE_TEST_EXAMPLES makes it long: that many requests for each operation
and phase, different each time. A failure prints its seed and a curl command.
"""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.config import Settings
from app.db import create_db_engine
from app.main import create_app
from tests.helpers import problems_of
from tests.operations import OPERATIONS, schemas_sent
from tests.server import Finished, Server, copy_of_project, running_server, serving

EXAMPLES = os.environ.get("MOVIE_TEST_EXAMPLES")
SHORT = ["--phases=fuzzing", "--max-examples=20", "--generation-deterministic"]
KEY = "key"
LEFT_OUT = [
    # A `genre` that is not among the `genres`, a `created_at` that is not over, `after` with
    # `offset`, and an `If-Match` that is empty or of another version: no schema can express them.
    "positive_data_acceptance",
]
# The smallest integers that PostgreSQL's columns and the drivers of both engines reject. Without
# this list, schemathesis needs hundreds of requests to generate one.
EDGES = [2**31, 2**63]
EDGES_PROBABILITY = 0.2


def write_configuration(folder: Path) -> None:
    """Make schemathesis send EDGES as every documented integer."""
    names = sorted(
        {
            name
            for operation in OPERATIONS
            for name, schema in schemas_sent(operation)
            if schema.get("type") == "integer"
        }
    )
    edges = f'{{ dictionary = "edges", probability = {EDGES_PROBABILITY} }}'
    lines = ["[dictionaries.edges]", f"values = {EDGES}", "[parameters]"]
    lines += [f'"{name}" = {edges}' for name in names]
    (folder / "schemathesis.toml").write_text("\n".join(lines))


def run_schemathesis(server: Server, folder: Path, *options: str) -> Finished:
    """Run schemathesis in a folder, which keeps its files."""
    write_configuration(folder)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        f"--header=X-API-Key: {KEY}",
        f"--exclude-checks={','.join(LEFT_OUT)}",
        "--no-color",
        *options,
    ]
    finished = subprocess.run(  # noqa: S603 - a tool of the project's own environment
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


@pytest.mark.slow
@pytest.mark.ci
def test_no_request_gets_a_5xx_or_an_undocumented_response(
    tmp_path: Path, database_url: str
) -> None:
    options = SHORT if EXAMPLES is None else [f"--max-examples={EXAMPLES}"]
    settings = Settings(database_url=database_url, api_key=SecretStr(KEY))
    with serving(create_app(settings)) as server:
        finished = run_schemathesis(server, tmp_path, *options)

    assert finished.exit_code == 0, finished.output + finished.errors
    assert f"Tested: {len(OPERATIONS)}" in finished.output
    engine = create_db_engine(database_url)
    assert problems_of(engine) == []
    engine.dispose()


@pytest.mark.slow
@pytest.mark.skipif(
    EXAMPLES is None, reason="part of the long run: MOVIE_TEST_EXAMPLES=200 CI=true uv run pytest"
)
@pytest.mark.parametrize("bounded", ["Id", "Count"])
def test_integer_without_a_bound_would_be_found(tmp_path: Path, bounded: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    module = copy_of_project(project) / "app" / "read_models.py"
    lines = module.read_text().splitlines()
    [number] = [i for i, line in enumerate(lines) if line.startswith(f"{bounded} = ")]
    assert ", le=INTEGER_MAX" in lines[number]
    lines[number] = lines[number].replace(", le=INTEGER_MAX", "")
    module.write_text("\n".join(lines))
    database_url = f"sqlite:///{tmp_path / 'movies.db'}"

    with running_server(
        tmp_path, project=project, database_url=database_url, api_key=KEY
    ) as server:
        options = [f"--max-examples={EXAMPLES}", "--phases=fuzzing", "--max-failures=1"]
        finished = run_schemathesis(server, tmp_path, *options)

    assert finished.exit_code == 1, finished.output + finished.errors
    assert "Server error" in finished.output

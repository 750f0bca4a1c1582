"""The house shows its rooms: what imports what, and that each capability can be removed."""

import ast
import re
import shutil
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from app.config import PROJECT_ROOT
from tests.server import Commands, copy_of_project

APP = PROJECT_ROOT / "app"
MODULES = {
    ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(APP.rglob("*.py"))
}
# The folders that are no capability.
PARTS_OF_THE_CORE = {"routes", "middleware"}
CAPABILITIES = sorted(
    path.name
    for path in APP.iterdir()
    if (path / "__init__.py").exists() and path.name not in PARTS_OF_THE_CORE
)
# What is left of the service without a capability still does this.
SMOKE = """
from fastapi.testclient import TestClient
from app.main import app
with TestClient(app) as client:
    rating = {"movie_id": 1, "user_id": 1, "score": 5}
    assert client.post("/ratings", json=rating).status_code == 204
    assert client.get("/movies/top?limit=1").json()[0]["average_rating"] == 5
"""


def imports(module: str) -> set[str]:
    """Return the modules of the service that one of them imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & MODULES.keys() - {"app"}


def room(module: str) -> str | None:
    """Return the capability that a module belongs to, None for the core."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in CAPABILITIES else None


def test_no_module_imports_itself_by_way_of_others() -> None:
    order = TopologicalSorter({module: imports(module) for module in MODULES})

    order.prepare()  # raises a CycleError that names the modules


def test_core_imports_no_capability_and_no_capability_another() -> None:
    assert CAPABILITIES
    strangers = {
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imports(module)
        if room(imported) not in (None, room(module))
    }

    assert strangers == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("app.repository", {"starlette", "fastapi", "uvicorn", "asgi_correlation_id"}),
        ("app.config", {"starlette", "fastapi", "uvicorn"}),
        ("app.db", {"starlette", "fastapi", "uvicorn"}),
    ],
)
def test_module_loads_nothing_of_http(tmp_path: Path, module: str, unwanted: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules)"

    finished = Commands(tmp_path).python("-c", program)

    assert finished.errors == ""
    assert unwanted & set(finished.output.split()) == set()


def test_one_module_knows_the_drivers_error_codes() -> None:
    # A name of SQLite's, or a SQLSTATE in quotes.
    code = re.compile(r"SQLITE_(?!THREADS|DIFF)[A-Z]+\b|[\"'](?:[0-9]{2}[0-9A-Z]{3})[\"']|sqlstate")
    knowing = {
        module for module, path in MODULES.items() if code.search(path.read_text(encoding="utf-8"))
    }

    assert knowing == {"app.db_errors"}


def test_readme_names_every_module_and_no_other() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## How a request travels")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(app/[a-z_/]*(?:\.py)?)`", table))
    rooms = {f"app/{name}/" for name in (*CAPABILITIES, *PARTS_OF_THE_CORE)} | {
        f"app/{path.name}" for path in APP.glob("*.py") if path.name != "__init__.py"
    }

    assert named == rooms, (
        "the table in 'How a request travels' lists the files and folders of app/"
    )


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_service_works_without_a_capability(tmp_path: Path, capability: str) -> None:
    project = copy_of_project(tmp_path / "project")
    shutil.rmtree(project / "app" / capability)
    for wiring in (project / "app" / "main.py", project / "scripts" / "db.py"):
        lines = wiring.read_text().splitlines(keepends=True)
        kept = [line for line in lines if f'"app.{capability}' not in line]
        assert len(lines) - len(kept) <= 1, "a capability is one line"
        wiring.write_text("".join(kept))
    commands = Commands(tmp_path, project, database_url=f"sqlite:///{tmp_path / 'movies.db'}")

    served = commands.python("-c", SMOKE)
    checked = commands.database("check")

    assert served.exit_code == 0, served.errors
    assert (checked.exit_code, checked.output) == (0, "Database sound\n")

"""What belongs where: files are the core, folders are routes, middleware and capabilities."""

import ast
import re
import shutil
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from app.config import PROJECT_ROOT, Settings
from app.main import create_app
from tests.operations import OPERATIONS
from tests.server import Commands, copy_of_project

APP = PROJECT_ROOT / "app"
# The syntax tree of each module, by its name.
MODULES = {
    ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__"): (
        ast.parse(path.read_text(encoding="utf-8"), str(path))
    )
    for path in sorted([*APP.rglob("*.py"), *PROJECT_ROOT.glob("migrations/versions/*.py")])
}
# The folders that are no capability.
PARTS_OF_THE_CORE = {"routes", "middleware"}
CAPABILITIES = sorted(
    path.name
    for path in APP.iterdir()
    if (path / "__init__.py").exists() and path.name not in PARTS_OF_THE_CORE
)

HTTP = "fastapi|starlette|http|uvicorn"
DATABASE = "sqlalchemy|sqlmodel|sqlite3|psycopg|alembic"
# Modules, and what they do not import.
BANS = {
    r"app\.(routes(\..*)?|.*\.routes)": rf"{DATABASE}|app\.models|app\.statements",
    r"app\.main": rf"{DATABASE}|app\.models|app\.statements",
    r"app\.(repository|statements|read_models|transactions|models|db|db_errors)": HTTP,
    r"app\.(.*\.)?(repository|statements)": rf"{HTTP}|app\.(main|routes|dependencies|schemas)",
    r"app\.models": r"pydantic|app\.schemas",
    r"app\.schemas": rf"{HTTP}|{DATABASE}",
    r"app\.errors": rf"{HTTP}|{DATABASE}|app",
    r"migrations\.versions\..*": r"app(?!\.search\b)|sqlmodel",
}
# Only these modules do this, and on purpose.
RESERVED = {
    "end a transaction": (r"\.(commit|rollback)\(|'(COMMIT|ROLLBACK)'", {
        "app.transactions",
        "app.kept_connections",  # by statements of the driver's, in transactions' name
        "app.schema_check",  # a savepoint, around temporary tables
    }),
    "declare a table": (r"\(.*table=True\)", {"app.models"}),
    "make tables from the models": (r"\.create_all\(", {"app.schema_check"}),
    "know a driver's error codes": (
        r"SQLITE_(?!THREADS|DIFFERENCES)[A-Z]+\b|'[0-9]{2}[0-9A-Z]{3}'|sqlstate", {"app.db_errors"}
    ),
}  # fmt: skip

# What is left of the service without a capability still does this.
SMOKE = """
from fastapi.testclient import TestClient
from app.main import app
with TestClient(app) as client:
    rating = {"movie_id": 1, "user_id": 1, "score": 5}
    assert client.post("/ratings", json=rating).status_code == 204
    assert client.get("/movies/top?limit=1").json()[0]["average_rating"] == 5
from scripts.db import cli
cli(["check"])
"""


def imports_of(module: str) -> set[str]:
    """Return what a module imports, wherever in it: modules, and names in them."""
    names: set[str] = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def capability_of(module: str) -> str | None:
    """Return the capability that a module belongs to, None for the core."""
    folder = module.split(".")[1] if "." in module else ""
    return folder if folder in CAPABILITIES else None


def routes() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the functions that answer requests, each after its place."""
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                ast.unparse(decorator).startswith("router.") for decorator in node.decorator_list
            ):
                yield f"{module}.{node.name}", node


@pytest.mark.parametrize("modules", BANS)
def test_layer_imports_nothing_that_belongs_to_another(modules: str) -> None:
    layer = [module for module in MODULES if re.fullmatch(modules, module)]
    assert layer

    found = {
        f"{module} imports {name}"
        for module in layer
        for name in imports_of(module)
        if re.match(rf"({BANS[modules]})(\.|$)", name)
    }

    assert found == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    imported = {module: imports_of(module) & MODULES.keys() - {"app"} for module in MODULES}

    TopologicalSorter(imported).prepare()  # raises a CycleError that names the modules


def test_core_imports_no_capability_and_no_capability_another() -> None:
    assert CAPABILITIES

    strangers = {
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imports_of(module) & MODULES.keys()
        if capability_of(imported) not in {None, capability_of(module)}
    }

    assert strangers == set()


@pytest.mark.slow
def test_core_below_the_routes_loads_nothing_of_http(tmp_path: Path) -> None:
    program = "import sys, app.config, app.db, app.repository; print(*sys.modules)"

    finished = Commands(tmp_path).python("-c", program)

    assert finished.errors == ""
    loaded = {module.partition(".")[0] for module in finished.output.split()}
    assert loaded & {"starlette", "fastapi", "uvicorn", "asgi_correlation_id"} == set()


def test_making_the_application_opens_no_database(tmp_path: Path) -> None:
    create_app(Settings(database_url=f"sqlite:///{tmp_path / 'movies.db'}"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deed", RESERVED)
def test_what_few_modules_may_do_no_other_does(deed: str) -> None:
    code, modules = RESERVED[deed]

    doing = {
        module
        for module, tree in MODULES.items()
        if module.startswith("app") and re.search(code, ast.unparse(tree))
    }

    assert doing == modules, "a module that may do it, with a reason, is added to RESERVED here"


def test_route_is_its_signature_and_a_statement_or_three() -> None:
    assert {route.name for _, route in routes()} == {
        operation.description["operationId"] for operation in OPERATIONS
    }

    for place, route in routes():
        assert ast.get_docstring(route), place
        assert len(route.body) <= 4, place
        for node in ast.walk(route):
            assert not isinstance(node, ast.If | ast.Try | ast.For | ast.While | ast.Raise), place


def test_route_that_reads_asks_for_a_read_session_and_no_other() -> None:
    asks_to_write = re.compile(r"\b(SessionDep|RepositoryDep)\b")

    found = {
        place
        for place, route in routes()
        if any(
            ast.unparse(decorator).startswith("router.get") for decorator in route.decorator_list
        )
        and asks_to_write.search(ast.unparse(route.args))
    }

    # Whether the primary can be used is what they tell.
    assert found == {"app.routes.health.ready", "app.replicas.routes.ready"}


def test_errors_hold_no_status_codes() -> None:
    numbers = [
        node.value
        for node in ast.walk(MODULES["app.errors"])
        if isinstance(node, ast.Constant) and isinstance(node.value, int)
    ]

    assert numbers == []


def test_type_checkers_of_other_projects_may_rely_on_the_annotations() -> None:
    assert (APP / "py.typed").is_file()


def test_readme_names_every_file_and_folder_of_the_service() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## How a request travels")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(app/[a-z_/]*(?:\.py)?)`", table))

    assert named == {f"app/{name}/" for name in (*CAPABILITIES, *PARTS_OF_THE_CORE)} | {
        f"app/{path.name}" for path in APP.glob("*.py") if path.name != "__init__.py"
    }, "the table in the README's 'How a request travels' lists the files and folders of app/"


@pytest.mark.slow
@pytest.mark.ci
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

    finished = commands.python("-c", SMOKE)

    assert (finished.exit_code, finished.output) == (0, "Database sound\n"), finished.errors

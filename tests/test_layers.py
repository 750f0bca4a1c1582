"""What must never be in each layer, read from the source, and what every route must say."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app.config import PROJECT_ROOT, Settings
from app.main import create_app

ROUTES = sorted((PROJECT_ROOT / "app" / "routes").glob("*.py"))
VERSIONS = sorted((PROJECT_ROOT / "migrations" / "versions").glob("*.py"))
DATABASE = {"sqlalchemy", "sqlmodel", "sqlite3", "psycopg", "alembic"}
HTTP = {"fastapi", "starlette", "http", "uvicorn"}

# Layer by layer: what its modules do not import. A package stands for all that is in it.
BANS: dict[str, tuple[list[Path], set[str]]] = {
    "routes": (ROUTES, {*DATABASE, "app.models", "app.statements"}),
    "repository": (
        [
            PROJECT_ROOT / "app" / name
            for name in ("repository.py", "statements.py", "read_models.py", "transactions.py")
        ],
        {*HTTP, "app.main", "app.routes", "app.dependencies", "app.error_handlers"},
    ),
    "tables": ([PROJECT_ROOT / "app" / "models.py"], {*HTTP, "pydantic", "app.schemas"}),
    "payloads": ([PROJECT_ROOT / "app" / "schemas.py"], {*HTTP, *DATABASE}),
    "errors": ([PROJECT_ROOT / "app" / "errors.py"], {*HTTP, *DATABASE, "app"}),
    "application": (
        [PROJECT_ROOT / "app" / "main.py"],
        {*DATABASE, "app.models", "app.statements"},
    ),
    "migrations": (VERSIONS, {"app", "sqlmodel"}),
}

# The contract: each operation with its answers. A 503 is for a database that is out of reach.
OPERATIONS = {
    "GET /health": {200},
    "GET /ready": {200, 503},
    "GET /movies": {200, 422, 503},
    "POST /movies": {201, 400, 409, 422, 503},
    "GET /movies/top": {200, 422, 503},
    "GET /movies/{movie_id}": {200, 404, 422, 503},
    "PUT /movies/{movie_id}": {200, 400, 404, 409, 422, 503},
    "PATCH /movies/{movie_id}": {200, 400, 404, 409, 422, 503},
    "DELETE /movies/{movie_id}": {204, 404, 422, 503},
    "GET /ratings": {200, 422, 503},
    "POST /ratings": {204, 400, 404, 422, 503},
    "POST /ratings/batch": {204, 400, 404, 422, 503},
    "DELETE /movies/{movie_id}/ratings/{user_id}": {204, 404, 422, 503},
}


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> set[str]:
    """Return the modules and names that a module imports, wherever in it, fully qualified."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports by a relative name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_of_app() -> list[Path]:
    """Return the modules of the service."""
    return sorted((PROJECT_ROOT / "app").rglob("*.py"))


def routes_in(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions of a module that answer requests."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            ast.unparse(decorator).startswith("router.") for decorator in node.decorator_list
        ):
            yield node


@pytest.fixture(scope="module")
def operations() -> dict[str, dict[str, Any]]:
    """The operations of the OpenAPI document, by method and path."""
    # No test starts this application, so that its database is never opened.
    app = create_app(Settings(database_url="sqlite:///never-opened.db", auto_setup=False))
    return {
        f"{method.upper()} {path}": operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }


@pytest.mark.parametrize("layer", BANS)
def test_layer_imports_nothing_that_belongs_to_another(layer: str) -> None:
    modules, banned = BANS[layer]
    assert modules

    found = {
        f"{module.name}: {name}"
        for module in modules
        for name in imports_of(module)
        if any(f"{name}.".startswith(f"{ban}.") for ban in banned)
    }

    assert found == set()


def test_route_is_its_signature_and_a_statement_or_three() -> None:
    routes = [(path, route) for path in ROUTES for route in routes_in(path)]
    assert len(routes) == len(OPERATIONS)

    for path, route in routes:
        where = f"{path.name}: {route.name}"
        assert ast.get_docstring(route), where
        assert len(route.body) <= 4, where
        for node in ast.walk(route):
            assert not isinstance(node, ast.If | ast.Try | ast.For | ast.While | ast.Raise), where


def test_only_transactions_commit() -> None:
    committing = {
        path.name
        for path in modules_of_app()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr == "commit"
    }

    assert committing == {"transactions.py"}


def test_type_checkers_of_other_projects_may_rely_on_the_annotations() -> None:
    assert (PROJECT_ROOT / "app" / "py.typed").is_file()


def test_errors_hold_no_status_codes() -> None:
    tree = tree_of(PROJECT_ROOT / "app" / "errors.py")

    numbers = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, int)
    ]

    assert numbers == []


def test_tables_are_in_the_models_module_only() -> None:
    tables = {
        (path.name, node.name)
        for path in modules_of_app()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and any(word.arg == "table" for word in node.keywords)
    }

    assert {file for file, _ in tables} == {"models.py"}


def test_tables_are_made_from_the_models_for_comparison_only() -> None:
    makers = {
        path.name
        for path in modules_of_app()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr == "create_all"
    }

    assert makers == {"schema_check.py"}


def test_api_offers_the_operations_of_the_contract_and_no_others(
    operations: dict[str, dict[str, Any]],
) -> None:
    assert set(operations) == set(OPERATIONS), "a new operation is added to OPERATIONS here"


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_documents_itself_and_its_answers(
    operations: dict[str, dict[str, Any]], name: str
) -> None:
    operation = operations[name]

    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert {int(status) for status in operation["responses"]} >= OPERATIONS[name]
    for status, response in operation["responses"].items():
        assert response["description"]
        if status not in {"204", "304"}:
            assert response["content"]["application/json"]["schema"]

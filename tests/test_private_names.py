"""Names of libraries that are not part of their public API, and the versions that have them.

Each test fails first when its library changes, and says what to look at. To use a new version:
raise the bound in pyproject.toml, read what changed, and run the tests.
"""

import asyncio
import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from fastapi.routing import APIRoute, iter_route_contexts
from packaging.requirements import Requirement
from packaging.version import Version
from prometheus_client.multiprocess import mark_process_dead
from uvicorn import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.config import PROJECT_ROOT
from app.http import query_parameters
from app.http.connection_limits import BoundedHttpToolsProtocol
from app.main import app
from tests.server import alembic_config

# The private names, each after its module. The linter requires a reason beside each.
PRIVATE_NAMES = {
    ("app/db/engines.py", "_WaitTimeout"),
    ("app/db/migrations.py", "_upgrade_revs"),
}
LIBRARIES = ["alembic", "fastapi", "prometheus-client", "psycopg", "uvicorn"]
# The methods of uvicorn's protocol that the service extends.
EXTENDED = {
    *("__init__", "connection_made", "connection_lost", "data_received", "send_400_response"),
    *("on_message_begin", "on_headers_complete", "on_body", "on_message_complete"),
    "on_response_complete",
}


def changed(library: str, module: str, name: str) -> str:
    """Return what to do about a changed name."""
    return (
        f"{library} {version(library)} has changed {name}, which {module} uses: adapt it, "
        "then raise the bound in pyproject.toml"
    )


def requirements() -> dict[str, list[Requirement]]:
    """Return what pyproject.toml requires, by package."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [
        *project["project"]["dependencies"],
        *(line for lines in project["project"]["optional-dependencies"].values() for line in lines),
        *(line for lines in project["dependency-groups"].values() for line in lines),
    ]
    found: dict[str, list[Requirement]] = {}
    for line in lines:
        requirement = Requirement(line)
        found.setdefault(requirement.name, []).append(requirement)
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_with_private_names_is_bounded_from_above(library: str) -> None:
    required = requirements()[library]

    for requirement in required:
        bounds = [each for each in requirement.specifier if each.operator == "<"]
        assert bounds, f"{requirement} needs an upper bound"
        assert Version(version(library)) in requirement.specifier


def test_private_names_are_listed_here() -> None:
    found = {
        (path.relative_to(PROJECT_ROOT).as_posix(), name)
        for folder in ("app", "migrations", "scripts")
        for path in (PROJECT_ROOT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "noqa: SLF001" in line or "noqa: PLC2701" in line
        for name in re.findall(r"(?<=\.)_[A-Za-z]\w*", line.partition("#")[0])
    }

    assert found == PRIVATE_NAMES


def test_alembic_lists_the_steps_of_an_upgrade() -> None:
    directory = ScriptDirectory.from_config(alembic_config(PROJECT_ROOT))
    problem = changed("alembic", "app/db/migrations.py", "ScriptDirectory._upgrade_revs")
    find = getattr(directory, "_upgrade_revs", None)

    assert find is not None, problem
    assert [*inspect.signature(find).parameters] == ["destination", "current_rev"], problem
    steps = [step.revision.revision for step in find("head", None)]
    revisions = [script.revision for script in directory.walk_revisions()]
    assert steps == revisions[::-1], problem


def test_psycopg_raises_its_private_error_when_a_wait_takes_too_long() -> None:
    problem = changed("psycopg", "app/db/engines.py", "Connection.wait or errors._WaitTimeout")
    parameters = inspect.signature(psycopg.Connection.wait).parameters
    error = getattr(psycopg.errors, "_WaitTimeout", None)

    assert parameters.keys() >= {"gen", "timeout"}, problem
    assert error is not None, problem
    assert issubclass(error, psycopg.OperationalError), problem
    assert "_WaitTimeout" in (psycopg.Connection.wait.__doc__ or ""), problem


def test_uvicorn_has_the_attributes_that_connection_limits_use() -> None:
    class Plain(HttpToolsProtocol):
        """uvicorn's protocol: an instance of the base class would be a bounded one."""

    async def attributes(kind: type[HttpToolsProtocol]) -> set[str]:
        return {*vars(kind(Config(app, log_config=None), ServerState(), {}))}

    problem = changed("uvicorn", "app/http/connection_limits.py", "HttpToolsProtocol")
    plain, bounded = (asyncio.run(attributes(kind)) for kind in (Plain, BoundedHttpToolsProtocol))

    assert AutoHTTPProtocol is HttpToolsProtocol, problem
    # The service extends these methods; its other names do not exist in uvicorn.
    own = {name for name in vars(BoundedHttpToolsProtocol) if name not in vars(object)}
    own |= {"__init__"}
    own -= {"__annotations__", "__static_attributes__", "__firstlineno__"} - {*EXTENDED}
    inherited = {*dir(HttpToolsProtocol), *plain} - {"__module__", "__weakref__", "__dict__"}
    assert own & inherited == EXTENDED, problem
    added = {"_unparsed", "_head_bytes", "_is_unfinished", "_refusal", "_timer"}
    assert bounded - plain == added, problem
    used = {"transport", "flow", "pipeline", "cycle", "loop", "logger", "scope", "headers"}
    assert plain >= used, problem
    assert {*vars(FlowControl)} >= {"pause_reading", "resume_reading"}, problem


def test_fastapi_describes_the_query_parameters_of_every_route() -> None:
    problem = changed("fastapi", "app/http/query.py", "Dependant, or iter_route_contexts")
    routes = {
        context.path: context.original_route
        for context in iter_route_contexts(app.routes)
        if "GET" in (context.methods or ())
    }
    top = routes["/movies/top"]

    assert isinstance(top, APIRoute), problem
    assert {"ranking", "limit"} <= {*query_parameters(top.dependant)}, problem
    assert top.dependant.dependencies, problem


def test_prometheus_client_names_the_files_of_live_gauges_after_the_process(tmp_path: Path) -> None:
    problem = changed("prometheus-client", "app/metrics/measurements.py", "gauge_live*_PID.db")
    for name in ("gauge_livesum_7.db", "gauge_livesum_8.db", "counter_7.db"):
        (tmp_path / name).touch()

    mark_process_dead(7, str(tmp_path))  # type: ignore[no-untyped-call] # untyped in the library

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"gauge_livesum_8.db", "counter_7.db"}, problem

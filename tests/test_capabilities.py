"""A capability is removed by deleting its folder and its one line; all else goes on."""

import re
from pathlib import Path
from shutil import rmtree

import pytest

from app import main
from app.config import PROJECT_ROOT
from tests.server import Commands, Finished, copy_of_project

LISTS = ("app/main.py", "scripts/db.py")
# Each answer's status, in a process of its own since the modules are those of the copy.
USE = """
from fastapi.testclient import TestClient
from app.main import app

with TestClient(app) as client:
    movie = client.post("/movies", json={"title": "Heat", "year": 1995}).json()
    rating = {"movie_id": movie["id"], "user_id": 7, "score": 4}
    unknown = rating | {"movie_id": 999}
    print(
        client.post("/ratings", json=rating).status_code,
        client.post("/ratings", json=unknown).status_code,
        client.post("/ratings/batch", json=[rating]).status_code,
        [client.get(f"/movies/{movie['id']}").json()["rating_count"] for _ in range(2)],
        "POST" in client.options("/ratings").headers["Allow"],
    )
"""


def listed(name: str) -> list[str]:
    """Return the modules that a file lists as capabilities."""
    text = (PROJECT_ROOT / name).read_text()
    return re.findall(r'^    "(app\.[\w.]+)",$', text, re.MULTILINE)


def test_every_capability_of_the_application_is_tried() -> None:
    assert listed("app/main.py") == [*main.CAPABILITIES]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "capability"), [(name, module) for name in LISTS for module in listed(name)]
)
def test_a_capability_that_is_removed_is_missed_by_nothing_else(
    tmp_path: Path, elsewhere: Path, name: str, capability: str
) -> None:
    project = copy_of_project(tmp_path / "project")
    rmtree(project / "app" / capability.split(".")[1])
    lines = (project / name).read_text().splitlines(keepends=True)
    (project / name).write_text("".join(x for x in lines if x != f'    "{capability}",\n'))
    commands = Commands(elsewhere, project)

    used = commands.python("-c", USE)
    checked = commands.database("check")

    assert (used.exit_code, used.output) == (0, "204 404 204 [1, 1] True\n"), used.errors
    assert checked == Finished(0, "Database sound\n", "")

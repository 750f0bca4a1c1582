"""Two versions of the service on one database, as in a rolling upgrade."""

import io
import shutil
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from app.config import PROJECT_ROOT
from app.db import create_db_engine, migrate
from app.repository import MovieRepository
from app.tables import MOVIE_GENRE
from tests.helpers import HEAT, problems_of, store
from tests.server import PROJECT_PARTS, Commands, running_server

# The last revision of the previous release is d2b7e4c91f06.
PREVIOUS_RELEASE = "e3a6fe3ca3e0a89ab48fa7520f1534430f05ef13"
GIT = shutil.which("git")


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """Return the folder of the previous release, from the project's history."""
    archive = subprocess.run(  # noqa: S603 - git itself
        [str(GIT), "-C", str(PROJECT_ROOT), "archive", PREVIOUS_RELEASE, *PROJECT_PARTS],
        capture_output=True,
        check=False,
    ) if GIT else None  # fmt: skip
    if archive is None or archive.returncode:
        pytest.skip("the previous release is missing: run git fetch --unshallow")
    folder = tmp_path / "previous"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def found_wrong(database_url: str) -> list[str]:
    """Return the problems of the data that ``scripts/db.py check`` would print."""
    engine = create_db_engine(database_url)
    try:
        return problems_of(engine)
    finally:
        engine.dispose()


def test_update_with_equal_genres_adds_the_rows_that_an_older_version_omits(
    engine: Engine, repository: MovieRepository
) -> None:
    store(engine, HEAT)
    with engine.begin() as connection:
        connection.execute(MOVIE_GENRE.delete())

    repository.update(1, genre="Crime")

    assert problems_of(engine) == []


@pytest.mark.slow
@pytest.mark.ci
def test_previous_version_serves_while_the_new_one_migrates_and_serves(
    previous: Path, new_url: str, tmp_path: Path
) -> None:
    Commands(tmp_path, previous, database_url=new_url).alembic("upgrade", "head")
    rating = {"movie_id": 1, "user_id": 1, "score": 5}
    heat = {"title": "Heat", "year": 1995, "genres": ["Crime", "Drama"]}
    ronin = {"title": "Ronin (again!)", "year": 1998, "genre": "Action"}
    paths = ("/movies/1", "/movies/6", "/movies/7")
    with ExitStack() as running:

        def start(project: Path) -> httpx.Client:
            server = running_server(tmp_path, project=project, database_url=new_url)
            return running.enter_context(running.enter_context(server).client())

        old = start(previous)
        before = old.post("/ratings", json=rating).status_code
        migrate(new_url)
        new = start(PROJECT_ROOT)
        statuses = [
            new.post("/ratings", json=rating | {"user_id": 2**40}).status_code,
            old.post("/ratings", json=rating | {"user_id": 2}).status_code,
            new.post("/movies", json=heat).status_code,
            old.post("/movies", json=ronin).status_code,
        ]
        seen_by_old, seen_by_new = (
            [client.get(path).json() for path in paths] for client in (old, new)
        )
        ratings = [client.get("/ratings").json() for client in (old, new)]
        ready = [client.get("/ready").status_code for client in (old, new)]
        action = [movie["id"] for movie in new.get("/movies?genre=action").json()]
        removed = old.delete("/movies/6").status_code
        left_out = found_wrong(new_url)
        replaced = new.put("/movies/7", json=ronin).status_code

    assert (before, statuses, removed, replaced) == (204, [204, 204, 201, 201], 204, 200)
    # The previous version knows fewer fields.
    assert seen_by_old == [
        {name: movie[name] for name in known}
        for movie, known in zip(seen_by_new, seen_by_old, strict=True)
    ]
    assert [movie["title"] for movie in seen_by_new] == ["Inception", "Heat", "Ronin (again!)"]
    assert ratings[0] == ratings[1]
    assert len(ratings[1]) == 3
    # It still serves, but reports to load balancers that it is not ready.
    assert ready == [503, 200]
    # A movie of the old version lacks the newer columns until the new version writes it.
    assert 7 not in action
    assert left_out == [
        "movie 7 (Ronin (again!)): search key is out of date",
        "movie 7 (Ronin (again!)): movie_genre rows differ from the movie's genres",
    ]
    assert found_wrong(new_url) == []

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
# Its last revision is f2b8d6a10c47.
BEFORE_SEARCH_BY_NAMES = "1093fedb164ca2e7d3b285edc219c351d42afa44"
GIT = shutil.which("git")


@pytest.fixture
def release() -> str:
    """The commit of the older version."""
    return PREVIOUS_RELEASE


@pytest.fixture
def previous(release: str, tmp_path: Path) -> Path:
    """The folder of the previous release, from the project's history."""
    archive = subprocess.run(  # noqa: S603 - git itself
        [str(GIT), "-C", str(PROJECT_ROOT), "archive", release, *PROJECT_PARTS],
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


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("release", [BEFORE_SEARCH_BY_NAMES])
def test_version_before_search_by_names_serves_beside_the_new_one(
    previous: Path, new_url: str, tmp_path: Path
) -> None:
    Commands(tmp_path, previous, database_url=new_url).alembic("upgrade", "head")
    rating = {"movie_id": 2, "user_id": 1, "score": 5}
    heat = {"title": "Heat, The (2013)", "year": 2013, "genres": ["Crime", "Drama"]}
    with ExitStack() as running:

        def start(project: Path) -> httpx.Client:
            server = running_server(tmp_path, project=project, database_url=new_url)
            return running.enter_context(running.enter_context(server).client())

        def titles(client: httpx.Client, query: str) -> list[str]:
            return [movie["title"] for movie in client.get(f"/movies?{query}").json()]

        old = start(previous)
        migrate(new_url)
        # Written between the revision and the start of the new version.
        written = [old.post("/ratings", json=rating).status_code]
        new = start(PROJECT_ROOT)
        filled = found_wrong(new_url)
        written += [
            old.post("/movies", json=heat).status_code,
            old.patch("/movies/1", json={"title": "Ronin"}).status_code,
            old.patch("/movies/3", json={"genres": ["Drama", "Crime"]}).status_code,
            old.post("/ratings", json=rating | {"user_id": 2, "score": 3}).status_code,
            new.post("/ratings", json=rating | {"user_id": 3, "score": 4}).status_code,
            new.post("/movies", json={"title": "Zulu", "year": 1964}).status_code,
            old.delete("/movies/4").status_code,
        ]
        top = [client.get("/movies/top?limit=1").json() for client in (old, new)]
        genres = [client.get("/genres").json() for client in (old, new)]
        found = {
            q: titles(new, f"q={q}") for q in ("the+heat", "ronin", "zulu", "zuul", "godfahter")
        }
        found_by_old = [titles(old, f"q={q}") for q in ("heat", "ronin", "zulu", "matrix")]
        by_title = titles(new, "sort=title")
        ids = [[m["id"] for m in c.get("/movies?sort=-id").json()] for c in (old, new)]
        left_out = found_wrong(new_url)
        finished = Commands(tmp_path, PROJECT_ROOT, database_url=new_url).database("repair")
        by_title_at_last = titles(new, "sort=title")
        found_at_last = [titles(new, f"q={q}") for q in ("inception", "haet")]

    assert filled == []
    assert written == [204, 201, 200, 200, 204, 204, 201, 204]
    assert top[0] == top[1]
    assert (top[1][0]["title"], top[1][0]["rating_count"]) == ("The Matrix", 3)
    assert genres[0] == genres[1]
    # The index corrects typos of indexed titles only; the rest is found as before.
    assert found == {
        "the+heat": ["Heat, The (2013)"],
        "ronin": ["Ronin"],
        "zulu": ["Zulu"],
        "zuul": ["Zulu"],
        "godfahter": ["The Godfather"],
    }
    assert found_by_old == [["Heat, The (2013)"], ["Ronin"], ["Zulu"], ["The Matrix"]]
    # By code point, because a movie lacks its sort title.
    assert by_title == sorted(by_title)
    assert ids[0] == ids[1] == [7, 6, 5, 3, 2, 1]
    assert left_out == [
        "movie 1 (Ronin): search key is out of date",
        "movie 6 (Heat, The (2013)): search key is out of date",
    ]
    assert finished.errors == ""
    assert found_wrong(new_url) == []
    assert by_title_at_last == [
        "Black Panther", "The Godfather", "Heat, The (2013)", "The Matrix", "Ronin", "Zulu",
    ]  # fmt: skip
    assert found_at_last == [[], ["Heat, The (2013)"]]

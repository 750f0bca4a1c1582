"""GET /movies.csv and /ratings.csv stream the files of an export."""

import asyncio
import csv
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlmodel import Session
from starlette.types import Message

from app.movielens.commands import export
from app.movielens.repository import CatalogueRepository
from app.movielens.streams import movies_csv
from app.read_models import NewRating
from app.repository import MovieRepository
from tests.helpers import HEAT, RONIN, SAMPLES, Sample, store, words
from tests.server import DEADLINE_SECONDS, serving

# The last id is the largest one.
USERS = (7, 8, 2**53 - 1)
# Rows per page and per piece, so small files have several.
FEW = 3
FILES = ["movies.csv", "ratings.csv"]
MOVIE_QUERIES = (
    *words(
        "genre=sci-fi q=al year_min=2001&year_max=2007 genre=none imdb_id=tt0113277 tmdb_id=949"
    ),
    *("", "genre=Drama&q=%D0%94%D0%9E%D0%9C&year_min=2000"),
)
RATING_QUERIES = ("", *words("movie_id=2 user_id=7 movie_id=3&user_id=7 movie_id=99"))


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages and pieces short."""
    monkeypatch.setattr("app.movielens.repository.PAGE_SIZE", FEW)
    monkeypatch.setattr("app.movielens.files._ROWS_PER_PIECE", FEW)


@pytest.fixture
def _catalogue(engine: Engine, repository: MovieRepository) -> None:
    """Store movies with anonymous ratings and those of three users."""
    ids = store(engine, *SAMPLES)
    repository.update(9, imdb_id="tt0113277", tmdb_id=949, genres=["Crime", "Drama"])
    repository.add_ratings(
        [NewRating(movie_id, 1 + movie_id % 5, user_id) for movie_id in ids for user_id in USERS]
    )


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(text.splitlines()))


def no_snapshot_is_held(engine: Engine) -> bool:
    """Return whether no connection keeps a snapshot open, which would keep the WAL or dead rows."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.rollback()
            # The transaction that SQLAlchemy has begun would block the checkpoint.
            driver: Any = connection.connection.driver_connection
            driver.rollback()
            is_busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not is_busy
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        held: int = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity"  # noqa: S608 - built from constants
            f" WHERE {others} AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)"
        ).scalar_one()
        return held == 0


# Content


@pytest.mark.usefixtures("_catalogue")
def test_files_equal_those_of_an_export(
    client: TestClient, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", database_url)
    export(tmp_path / "files")

    for name, accepted in product(FILES, ("identity", "gzip")):
        answer = client.get(f"/{name}", headers={"Accept-Encoding": accepted})

        assert answer.content == (tmp_path / "files" / name).read_bytes()
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["Vary"] == "Accept-Encoding, Origin"
        assert answer.headers.get("Content-Encoding", "identity") == accepted
        assert "ETag" not in answer.headers


@pytest.mark.usefixtures("_catalogue")
def test_files_contain_the_rows_of_the_lists_with_the_same_filters(client: TestClient) -> None:
    for query in MOVIE_QUERIES:
        listed = client.get(f"/movies?sort=id&{query}").json()
        rows = rows_of(client.get(f"/movies.csv?{query}").text)
        assert [(int(row["movieId"]), row["title"], int(row["year"])) for row in rows] == [
            (movie["id"], movie["title"], movie["year"]) for movie in listed
        ], query
    for query in RATING_QUERIES:
        listed = client.get(f"/ratings?limit=1000&{query}").json()
        rows = rows_of(client.get(f"/ratings.csv?{query}").text)
        assert [(row["userId"], row["movieId"], row["rating"]) for row in rows] == [
            (str(rating["user_id"]), str(rating["movie_id"]), f"{rating['score']}.0")
            for rating in listed
            if rating["user_id"] is not None
        ], query


def test_year_is_a_column_only_if_a_title_does_not_end_in_it(
    client: TestClient, engine: Engine
) -> None:
    store(engine, Sample("Heat (1995)", 1995, "Crime"), Sample("Ronin", 1998, "Action"))

    every, crime = client.get("/movies.csv"), client.get("/movies.csv?genre=crime")

    assert every.text == (
        "movieId,title,genres,year\r\n1,Heat (1995),Crime,1995\r\n2,Ronin,Action,1998\r\n"
    )
    assert crime.text == "movieId,title,genres\r\n1,Heat (1995),Crime\r\n"


def test_files_of_an_empty_catalogue_contain_a_header(client: TestClient) -> None:
    answers = [client.get(f"/{name}").text for name in FILES]

    assert answers == ["movieId,title,genres\r\n", "userId,movieId,rating,timestamp\r\n"]


@pytest.mark.usefixtures("_catalogue")
def test_head_reads_only_the_first_page(app: FastAPI, client: TestClient) -> None:
    statements: list[str] = []

    @event.listens_for(app.state.service.database.engine, "before_cursor_execute")
    def note(_connection: Connection, _cursor: DBAPICursor, statement: str, *_: object) -> None:
        statements.append(statement)

    answer = client.head("/ratings.csv")

    assert (answer.status_code, answer.content) == (200, b"")
    assert len([statement for statement in statements if "FROM rating" in statement]) == 1


# Slow readers, and readers that disconnect


class Reader:
    """Reads some pieces of a file over ASGI and then waits or disconnects."""

    def __init__(self, app: FastAPI, path: str) -> None:
        self._app = app
        self._path = path
        self._may_go_on = asyncio.Event()
        self._has_left = asyncio.Event()
        self.waits = asyncio.Event()
        self.text = ""
        self.is_complete = False

    async def read(self, *, pieces: int) -> None:
        """Read a file, and wait after some pieces."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": self._path,
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }

        async def receive() -> Message:
            await self._has_left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal pieces
            if message["type"] == "http.response.body":
                self.text += message["body"].decode()
                self.is_complete = not message.get("more_body")
                pieces -= 1
                if pieces == 0:
                    self.waits.set()
                    await self._may_go_on.wait()

        await self._app(scope, receive, send)

    def go_on(self) -> None:
        """Read the rest."""
        self._may_go_on.set()

    def leave(self) -> None:
        """Disconnect."""
        self._has_left.set()


@pytest.mark.usefixtures("_catalogue")
@pytest.mark.parametrize("path", ["/movies.csv", "/ratings.csv"])
def test_slow_reader_blocks_no_writer_and_holds_no_snapshot(
    app: FastAPI, client: TestClient, engine: Engine, path: str
) -> None:
    expected = client.get(path).text

    async def read_slowly() -> Reader:
        reader = Reader(app, path)
        reading = asyncio.create_task(reader.read(pieces=2))
        await asyncio.wait_for(reader.waits.wait(), DEADLINE_SECONDS)
        assert client.post("/ratings", json={"movie_id": 1, "score": 5}).status_code == 204
        assert no_snapshot_is_held(engine)
        reader.go_on()
        await reading
        return reader

    reader = asyncio.run(read_slowly())

    assert reader.is_complete
    assert reader.text == expected


@pytest.mark.usefixtures("_catalogue")
@pytest.mark.parametrize("path", ["/movies.csv", "/ratings.csv"])
def test_reader_that_disconnects_leaves_no_connection_or_snapshot(
    app: FastAPI, client: TestClient, engine: Engine, path: str
) -> None:
    idle = app.state.service.database.engine.pool.checkedout()

    async def vanish() -> Reader:
        reader = Reader(app, path)
        reading = asyncio.create_task(reader.read(pieces=2))
        await asyncio.wait_for(reader.waits.wait(), DEADLINE_SECONDS)
        reader.leave()
        await reading
        return reader

    reader = asyncio.run(vanish())

    assert not reader.is_complete
    assert no_snapshot_is_held(engine)
    assert app.state.service.database.engine.pool.checkedout() == idle
    assert client.post("/ratings", json={"movie_id": 1, "score": 5}).status_code == 204


@pytest.mark.usefixtures("_catalogue")
def test_download_contains_every_rating_not_deleted_meanwhile(
    engine: Engine, repository: MovieRepository
) -> None:
    with Session(engine) as session:
        ratings = CatalogueRepository(session).ratings_by_page({})
        seen = [next(ratings)]
        repository.remove_rating(1, 8)
        repository.remove_rating(2, 7)
        repository.add_rating(3, 5, 7)
        repository.delete(4)
        seen += ratings

    found = [(rating.movie_id, rating.user_id) for rating in seen]
    stay = {(movie, user) for movie in range(1, 14) for user in USERS}
    stay -= {(1, 8), (2, 7), *((4, user) for user in USERS)}
    assert len(found) == len(set(found))
    assert set(found) >= stay


# Errors


@pytest.fixture
def _broken_after_a_page(app: FastAPI) -> Iterator[None]:
    """Make the database fail at the second page of ratings."""
    pages = 0

    def fail(_connection: Connection, _cursor: DBAPICursor, statement: str, *_: object) -> None:
        nonlocal pages
        pages += "FROM rating" in statement
        if pages > 1:
            raise RuntimeError("on purpose")

    event.listen(app.state.service.database.engine, "before_cursor_execute", fail)
    yield
    event.remove(app.state.service.database.engine, "before_cursor_execute", fail)


@pytest.mark.usefixtures("_catalogue", "_broken_after_a_page")
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_error_midway_drops_the_connection(app: FastAPI, accepted: str) -> None:
    with serving(app) as server, server.client() as client:
        with (
            client.stream("GET", "/ratings.csv", headers={"Accept-Encoding": accepted}) as response,
            pytest.raises(httpx.RemoteProtocolError, match="without sending complete message"),
        ):
            response.read()

        assert response.status_code == 200
        assert client.get("/health").status_code == 200


@pytest.mark.usefixtures("_broken_after_a_page")
def test_error_before_the_first_piece_is_a_500(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    client.get("/ratings.csv")

    answer = client.get("/ratings.csv")

    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal server error"})
    assert "Content-Disposition" not in answer.headers


def test_title_that_needs_the_year_column_midway_is_an_error(
    engine: Engine, repository: MovieRepository
) -> None:
    store(engine, *(Sample(f"Film {n} (2000)", 2000, "Drama") for n in range(2 * FEW)))

    with Session(engine) as session:
        pieces = movies_csv(CatalogueRepository(session), {})
        assert next(pieces).startswith("movieId,title,genres\r\n")
        repository.create(title=RONIN.title, year=RONIN.year)

        with pytest.raises(RuntimeError, match="movie 7 needs a column that the header lacks"):
            list(pieces)

"""MovieLens files: import, the least work that SQLite needs for the same rows, and export."""

import gc
import http.client
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import Session

from app.db import create_db_engine, migrate, reading
from app.movielens.files import MovieLensFolder, write_folder
from app.movielens.repository import CatalogueRepository
from scripts.bench.load import ANSWER_TIMEOUT, BenchError

COMMAND_LINE = Path(__file__).parent.with_name("db.py")
TABLES = ("movie", "movie_genre", "movie_word", "rating")
# Start the command from a small process: until a new process has loaded its program, the parent's
# memory counts as its own.
PEAK_OF_COMMAND = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def import_folder(source: Path, engine: Engine) -> None:
    """Import a MovieLens folder into a migrated database, as the command does."""
    folder = MovieLensFolder(source)
    with Session(engine) as session:
        CatalogueRepository(session).merge(folder.movies(_ignore), folder.ratings(_ignore))


def seconds_of_import(source: Path, target: Path) -> float:
    """Import a folder into a new database and return how long it takes."""
    _make_empty(target)
    engine = create_db_engine(f"sqlite:///{target}")
    gc.collect()
    started = time.perf_counter()
    import_folder(source, engine)
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds


def seconds_of_executemany(source: Path, target: Path) -> float:
    """Insert the rows of one database into another, from memory, and return how long it takes.

    All rows go in by one transaction, into the same tables with the same indexes and constraints.
    """
    with closing(sqlite3.connect(source)) as database:
        rows = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}  # noqa: S608 - constants
    _make_empty(target)
    gc.collect()
    with closing(sqlite3.connect(target, isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys=ON")
        database.execute("PRAGMA synchronous=FULL")
        started = time.perf_counter()
        database.execute("BEGIN IMMEDIATE")
        for name, values in rows.items():
            marks = ",".join("?" * len(values[0]))
            database.executemany(f"INSERT INTO {name} VALUES ({marks})", values)  # noqa: S608 - constants
        database.execute("COMMIT")
        return time.perf_counter() - started


def seconds_of_export(source: Path, target: Path) -> float:
    """Export a database to a new folder, as the command does, and return how long it takes."""
    shutil.rmtree(target, ignore_errors=True)
    engine = create_db_engine(f"sqlite:///{source}")
    gc.collect()
    started = time.perf_counter()
    with Session(engine) as session, reading(session):
        repository = CatalogueRepository(session)
        write_folder(
            target,
            repository.every_movie,
            repository.every_rating(),
            repository.every_anonymous_rating(),
        )
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds


def seconds_of_download(port: int, path: str) -> float:
    """Download a file from a server and return how long it takes.

    Raises:
        BenchError: the response is not a 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT)
    with closing(connection):
        started = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        while response.read(2**16):
            pass
        seconds = time.perf_counter() - started
    if response.status != http.client.OK:
        raise BenchError(f"GET {path} returned {response.status}")
    return seconds


def peak_memory(*arguments: str, database: Path) -> int:
    """Run a command of scripts/db.py and return its peak memory in MiB.

    Raises:
        BenchError: the command fails. The message includes its error output.
    """
    command = [sys.executable, str(COMMAND_LINE), *arguments]
    result = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-S", "-c", PEAK_OF_COMMAND, *command],
        env={"MOVIE_DATABASE_URL": f"sqlite:///{database}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise BenchError(f"{' '.join(arguments)} fails:\n{result.stderr}")
    # macOS reports bytes, other systems KiB.
    return int(result.stdout) // (2**20 if sys.platform == "darwin" else 2**10)


def _make_empty(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    migrate(f"sqlite:///{path}")


def _ignore(_: int) -> None:
    """Stand in for a progress bar."""

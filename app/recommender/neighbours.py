"""Reading likes for training, and storing the resulting neighbours."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from rich.progress import Progress
from sqlalchemy import Connection, Engine, Select
from sqlalchemy.orm import Session

from app.db import reading, writing
from app.recommender import statements
from app.recommender.training import Ids, Likes, Neighbours

# Rows held as Python objects at a time.
BATCH = 100_000
# With three parameters per row, this stays below SQLite's limit of 32,766.
ROWS_PER_STATEMENT = 10_000


def read_likes(session: Session, progress: Progress) -> Likes:
    """Return the likes of all users, without anonymous ratings."""
    with reading(session) as connection:
        return Likes(*read_integers(connection, statements.LIKES, progress))


def read_integers(connection: Connection, statement: Select[Any], progress: Progress) -> Ids:
    """Return the integers that a statement selects. Each column becomes a row of the array."""
    width = len(statement.selected_columns)
    parts = [np.empty((0, width), np.int64)]
    result = connection.execute(statement, execution_options={"yield_per": BATCH})
    for rows in progress.track(result.partitions(), description="Reading"):
        cells = np.fromiter(chain.from_iterable(rows), np.int64, width * len(rows))
        parts.append(cells.reshape(-1, width))
    return np.concatenate(parts).T


def replace_neighbours(engine: Engine, neighbours: Neighbours) -> None:
    """Replace all stored neighbours in one transaction, except those of movies deleted meanwhile.

    Readers see the old neighbours until the commit. On SQLite, the rows are staged before the write
    lock is taken, so other writers wait only while the staged table is copied.

    Args:
        engine: on SQLite with foreign keys off, because checking them takes a lookup per row.
        neighbours: the new neighbours.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            _stage_on_sqlite(connection, neighbours)
        with Session(connection) as session, writing(session):
            if connection.dialect.name == "postgresql":
                _stage_on_postgresql(connection, neighbours)
                # Lock neighbours before movies: the deletion of a movie has the same order.
                connection.execute(statements.LOCK_ON_POSTGRESQL)
            connection.execute(statements.DELETE_NEIGHBOURS)
            stored = connection.execute(statements.LOCK_STAGED_MOVIES).scalars().all()
            # movie_ids contains all neighbours too, because weights are symmetric.
            for movie_id in {*neighbours.movie_ids.tolist()} - {*stored}:
                connection.execute(statements.UNSTAGE, {"this_movie": movie_id})
            connection.execute(statements.INSERT_STAGED)
            if connection.dialect.name == "postgresql":
                connection.execute(statements.ANALYZE_ON_POSTGRESQL)


def _stage_on_sqlite(connection: Connection, neighbours: Neighbours) -> None:
    # Use the driver: SQLAlchemy would begin a transaction, which takes the write lock.
    driver: Any = connection.connection.driver_connection
    driver.execute(statements.STAGE_ON_SQLITE)
    for rows in _batches(neighbours, ROWS_PER_STATEMENT):
        driver.execute(statements.stage_on_sqlite(len(rows)), (*chain.from_iterable(rows),))
    driver.execute(statements.INDEX_STAGED_ON_SQLITE)


def _stage_on_postgresql(connection: Connection, neighbours: Neighbours) -> None:
    connection.execute(statements.STAGE_ON_POSTGRESQL)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statements.COPY_TO_STAGED_ON_POSTGRESQL) as copy:
        for rows in _batches(neighbours, BATCH):
            for row in rows:
                copy.write_row(row)


def _batches(neighbours: Neighbours, size: int) -> Iterator[list[tuple[int, int, float]]]:
    for start in range(0, len(neighbours.weights), size):
        columns = (column[start : start + size].tolist() for column in neighbours)
        yield [*zip(*columns, strict=True)]

"""What training reads and writes: likes, and the neighbours that are learnt from them."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from rich.progress import Progress
from sqlalchemy import Connection, Engine, Select
from sqlalchemy.orm import Session

from app.recommender import statements
from app.recommender.training import Ids, Likes, Neighbours
from app.transactions import reading, writing

# Rows that are held as Python's objects at a time.
BATCH = 100_000
# SQLite takes 32,766 parameters.
ROWS_A_STATEMENT = 10_000


def read_likes(session: Session, progress: Progress) -> Likes:
    """Return the likes of all users. Anonymous ratings are not among them."""
    with reading(session) as connection:
        return Likes(*read_integers(connection, statements.LIKES, progress))


def read_integers(connection: Connection, statement: Select[Any], progress: Progress) -> Ids:
    """Return the integers that a statement selects, a row of the array for each column."""
    width = len(statement.selected_columns)
    parts = [np.empty((0, width), np.int64)]
    result = connection.execute(statement, execution_options={"yield_per": BATCH})
    for rows in progress.track(result.partitions(), description="Reading"):
        cells = np.fromiter(chain.from_iterable(rows), np.int64, width * len(rows))
        parts.append(cells.reshape(-1, width))
    return np.concatenate(parts).T


def replace_neighbours(engine: Engine, neighbours: Neighbours) -> None:
    """Replace all stored neighbours in one transaction, except those of movies deleted meanwhile.

    Readers see the old ones until it ends. On SQLite other writers wait about as long as it takes
    to copy the table: the rows are put in order before.

    Args:
        engine: one that leaves foreign keys off on SQLite. There, each of them would be looked up.
        neighbours: what is stored.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            _stage_on_sqlite(connection, neighbours)
        with Session(connection) as session, writing(session):
            if connection.dialect.name == "postgresql":
                _stage_on_postgresql(connection, neighbours)
                # Before the movies are locked: whoever deletes one does it in this order too.
                connection.execute(statements.LOCK_ON_POSTGRESQL)
            connection.execute(statements.DELETE_NEIGHBOURS)
            stored = connection.execute(statements.LOCK_STAGED_MOVIES).scalars().all()
            # As weights are symmetric, each neighbour is a movie with neighbours itself.
            for movie_id in {*neighbours.movie_ids.tolist()} - {*stored}:
                connection.execute(statements.UNSTAGE, {"this_movie": movie_id})
            connection.execute(statements.INSERT_STAGED)
            if connection.dialect.name == "postgresql":
                connection.execute(statements.ANALYZE_ON_POSTGRESQL)


def _stage_on_sqlite(connection: Connection, neighbours: Neighbours) -> None:
    # Past SQLAlchemy, which would begin a transaction and with it take the lock.
    driver: Any = connection.connection.driver_connection
    driver.execute(statements.STAGE_ON_SQLITE)
    for rows in _batches(neighbours, ROWS_A_STATEMENT):
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

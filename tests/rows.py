"""Functions that fill and compare whole databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, select
from sqlmodel import Session

from app.db import create_db_engine
from app.db.schema import Schema, describe
from app.models import YEAR_MAX, YEAR_MIN
from app.repository import MovieRepository

Rows = dict[str, list[dict[str, Any]]]


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """Yield a connection and dispose of its engine."""
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def contents(url: str) -> tuple[Schema, Rows]:
    """Return the schema and all rows of a database."""
    with opened(url) as connection:
        return describe(connection), all_rows(connection)


def all_rows(connection: Connection) -> Rows:
    """Return the rows of every table, in the order of its primary key, Alembic's own included."""
    metadata = MetaData()
    metadata.reflect(connection)
    return {
        name: [
            dict(row)
            for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
        ]
        for name, table in metadata.tables.items()
    }


def shared(rows: Rows, other: Rows) -> Rows:
    """Return the rows in the tables and columns that another database has too."""
    shared_rows: Rows = {}
    for table in rows.keys() & other.keys():
        columns = {column for row in other[table] for column in row}
        shared_rows[table] = [
            {column: value for column, value in row.items() if column in columns}
            for row in rows[table]
        ]
    return shared_rows


def fill(url: str) -> None:
    """Store movies and ratings with the values that are easiest to lose."""
    engine = create_db_engine(url)
    with Session(engine) as session:
        repository = MovieRepository(session)
        ids = [
            repository.create(title=title, year=year, genre=genre).id
            for title, year, genre in (
                ("The Matrix", 1999, "Sci-Fi"),
                ('Quoted "Title", it\'s; -- 100%', YEAR_MIN, "Children's"),
                ("Æon Flux \N{CLAPPER BOARD} 東京物語", YEAR_MAX, "Unknown"),
                ("T" * 300, 2000, "G" * 100),
                ("Never rated", 2001, "Drama"),
                ("Removed", 2002, "Drama"),
            )
        ]
        for user_id in range(1, 8):
            repository.add_rating(ids[0], user_id % 5 + 1, user_id)
        repository.add_rating(ids[1], 5, 2**31 - 1)
        # 14 stars in 8 ratings: the weighted rating differs between decimal and binary.
        for score in (1, 1, 2, 2, 2, 2, 2, 2):
            repository.add_rating(ids[2], score)
        repository.remove_rating(ids[0], 3)
        repository.add_rating(ids[5], 3, 1)
        repository.delete(ids[5])
    engine.dispose()

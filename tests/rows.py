"""The rows of whole databases, in a form that two databases can be compared by."""

from typing import Any

from sqlalchemy import Connection, MetaData, select

Rows = dict[str, list[dict[str, Any]]]


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

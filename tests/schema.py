"""What a database holds, in a form that two databases can be compared by."""

import re
from typing import Any

from sqlalchemy import Connection, MetaData, select, text

Rows = dict[str, list[dict[str, Any]]]

_POSTGRESQL = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), l.collname
        FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          AND a.attnum > 0 AND NOT a.attisdropped
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "indexes": """
        SELECT pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = 'public'::regnamespace
    """,
    "sequences": """
        SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle
        FROM pg_sequences WHERE schemaname = 'public'
    """,
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "types": """
        SELECT typname, typtype::text FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
    """,
    "functions": """
        SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
}


def describe(connection: Connection) -> dict[str, object]:
    """Return all of a database's schema but Alembic's own table.

    For each kind of thing what the engine tells of it: columns with type, nullability, default and
    collation; constraints with name and text; indexes with the order of their columns and its
    direction. The order of columns within a table is left out, since a column that is added later
    comes last.
    """
    if connection.dialect.name == "sqlite":
        return _describe_sqlite(connection)
    return {
        kind: sorted(
            repr(tuple(row))
            for row in connection.execute(text(query))
            if "alembic_version" not in repr(row)
        )
        for kind, query in _POSTGRESQL.items()
    }


def _describe_sqlite(connection: Connection) -> dict[str, object]:
    def query(statement: str) -> list[Any]:
        return list(connection.exec_driver_sql(statement).all())

    schema: dict[str, object] = {}
    for kind, name, table, sql in query("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if kind == "table" and name != "alembic_version" and not name.startswith("sqlite_"):
            schema[f"table {name}"] = {
                # The first of each is a number that depends on the order of creation.
                "columns": {row[1]: tuple(row[2:]) for row in query(f"PRAGMA table_xinfo({name})")},
                "foreign keys": sorted(
                    repr(tuple(row[1:])) for row in query(f"PRAGMA foreign_key_list({name})")
                ),
                "indexes": sorted(
                    # SQLite's own names of a constraint's index are numbered.
                    (
                        "" if row[1].startswith("sqlite_autoindex") else row[1],
                        repr(tuple(row[2:])),
                        [tuple(part[2:]) for part in query(f"PRAGMA index_xinfo({row[1]})")],
                    )
                    for row in query(f"PRAGMA index_list({name})")
                ),
                "constraints": _constraints(sql),
                "autoincrement": "AUTOINCREMENT" in sql,
            }
        elif kind == "index" and table != "alembic_version" and sql and " WHERE " in sql.upper():
            schema[f"partial index {name}"] = sql
        elif kind not in ("table", "index"):
            schema[f"{kind} {name}"] = sql
    return schema


def _constraints(create_table: str) -> list[str]:
    """Return the constraints in a CREATE TABLE, which no PRAGMA tells of, in their own words."""
    body = create_table[create_table.index("(") + 1 : create_table.rindex(")")]
    return sorted(
        " ".join(part.replace('"', "").split())
        for part in _split_at_commas(body)
        if re.search(r"\b(CONSTRAINT|CHECK|UNIQUE|PRIMARY|REFERENCES|COLLATE)\b", part)
    )


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas that stand in no parentheses and no string."""
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == "'"
        if not quoted:
            depth += (character == "(") - (character == ")")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


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

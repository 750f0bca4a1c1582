"""Compares a database's schema with the models, on either engine.

The models' metadata creates its schema in a scratch database, and the same queries describe both.
So a definition that an engine merely spells differently does not count.
"""

import re
from collections.abc import Iterator

from sqlalchemy import Connection, create_engine, func, inspect, select, text
from sqlmodel import SQLModel

from app import models  # noqa: F401 - fills the metadata
from app.errors import SetupError

# By table: the definitions of its columns, constraints, indexes and triggers, by their names.
Schema = dict[str, dict[str, str]]

_CONSTRAINT = re.compile(
    r"(?:CONSTRAINT (\S+) )?((?:CHECK|UNIQUE|PRIMARY KEY|FOREIGN KEY)\b.*)", re.IGNORECASE
)
# Where a column's definition continues after its type, nullability and default.
_COLUMN_EXTRAS = re.compile(
    r" (?:CONSTRAINT|CHECK|UNIQUE|PRIMARY|REFERENCES|COLLATE|GENERATED|AS)\b", re.IGNORECASE
)
_INDEX = re.compile(
    r"CREATE (UNIQUE )?INDEX \S+ ON \S+ (?:USING btree )?(.*)", re.IGNORECASE | re.DOTALL
)

_POSTGRESQL = """
    WITH tables AS (
        SELECT oid, relname FROM pg_class c
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
    )
    SELECT relname, NULL, NULL FROM tables
    UNION ALL
    SELECT relname, 'column ' || attname, concat_ws(' ',
        format_type(atttypid, atttypmod),
        (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
         FROM pg_enum WHERE enumtypid = atttypid),
        (SELECT 'COLLATE ' || collname
         FROM pg_collation l WHERE l.oid = attcollation AND collname <> 'default'),
        CASE WHEN attnotnull THEN 'NOT NULL' END,
        'GENERATED ' || NULLIF(attgenerated::text || attidentity::text, ''),
        'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
    FROM tables
    JOIN pg_attribute a ON attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
    UNION ALL
    -- From version 18 on, NOT NULL is a constraint too.
    SELECT relname, 'constraint ' || conname, pg_get_constraintdef(c.oid, true)
    FROM tables JOIN pg_constraint c ON conrelid = tables.oid AND contype <> 'n'
    UNION ALL
    SELECT t.relname, 'index ' || c.relname,
           pg_get_indexdef(indexrelid, 0, true) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
    FROM tables t JOIN pg_index ON indrelid = t.oid JOIN pg_class c ON c.oid = indexrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
    UNION ALL
    SELECT relname, 'trigger ' || tgname, pg_get_triggerdef(t.oid, true)
    FROM tables JOIN pg_trigger t ON tgrelid = tables.oid AND NOT tgisinternal
"""


def schema_differences(connection: Connection) -> list[str]:
    """Return a line for each difference between the database's schema and the models.

    Safe while the service runs: it takes no lock that would block others.
    """
    return differences(describe(connection), describe_models(connection))


def differences(stored: Schema, expected: Schema) -> list[str]:
    """Return a line for each difference between two schemas."""
    lines = []
    for table in sorted(stored.keys() | expected.keys()):
        if table not in stored:
            lines.append(f"table {table} is missing")
        elif table not in expected:
            lines.append(f"table {table} is not in the models")
        else:
            lines += _differences(table, stored[table], expected[table])
    return lines


def require_complete(connection: Connection, stored: Schema) -> None:
    """Raise unless the database has every table, column and sequence of the models.

    Args:
        connection: to the database.
        stored: its schema.

    Raises:
        SetupError: some are missing; the message names them.
    """
    missing = []
    for table in SQLModel.metadata.sorted_tables:
        if table.name not in stored:
            missing.append(f"table {table.name} is missing")
            continue
        parts = [f"column {column.name}" for column in table.columns]
        missing += [f"{table.name}: {p} is missing" for p in parts if p not in stored[table.name]]
    missing += missing_sequences(connection, stored)
    if missing:
        raise SetupError("\n".join(["The database's schema is incomplete.", *missing]))


def missing_sequences(connection: Connection, stored: Schema) -> Iterator[str]:
    """Yield a line for each table of PostgreSQL that generates no ids for new rows."""
    for table, key in _tables_with_ids(connection):
        definition = stored.get(table, {}).get(f"column {key}", "DEFAULT")
        if "DEFAULT" not in definition and "GENERATED" not in definition:
            new = f"{table}_{key}_seq"
            fill = f"SELECT setval('{new}', max({key})) FROM {table};"  # noqa: S608 - to read
            yield (
                f"{table}: the sequence of column {key} is missing. Run in psql: "
                f"CREATE SEQUENCE {new} AS integer OWNED BY {table}.{key}; "
                f"ALTER TABLE {table} ALTER {key} SET DEFAULT nextval('{new}'); {fill}"
            )


def sequences_behind(connection: Connection) -> Iterator[str]:
    """Yield a line for each sequence of PostgreSQL that is behind the ids of its table."""
    existing = inspect(connection).get_table_names()
    for table, key in _tables_with_ids(connection):
        if table not in existing:
            continue
        named = func.pg_get_serial_sequence(table, key)
        sequence = connection.execute(select(named)).scalar_one()
        largest = connection.scalar(text(f"SELECT max({key}) FROM {table}"))  # noqa: S608 - the models'
        if sequence is None or largest is None:
            continue
        state = select(text("last_value"), text("is_called")).select_from(text(sequence))
        value, is_called = connection.execute(state).one()
        if value + is_called <= largest:
            fix = f"SELECT setval('{sequence}', max({key})) FROM {table};"  # noqa: S608 - to read
            yield (
                f"{table}: the next id is {value + is_called}, but ids up to {largest} are "
                f"taken. Run in psql: {fix}"
            )


def _tables_with_ids(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield name and key column of the tables whose ids PostgreSQL generates."""
    if connection.dialect.name == "postgresql":
        for table in SQLModel.metadata.sorted_tables:
            if len(table.primary_key) == 1:
                yield table.name, next(iter(table.primary_key)).name


def _differences(table: str, stored: dict[str, str], expected: dict[str, str]) -> list[str]:
    lines = []
    for part in sorted(stored.keys() | expected.keys()):
        if part not in stored:
            lines.append(f"{table}: {part} is missing; the models have {expected[part]}")
        elif part not in expected:
            lines.append(f"{table}: {part} is not in the models; the database has {stored[part]}")
        elif stored[part] != expected[part]:
            lines.append(f"{table}: {part} is {stored[part]}; the models have {expected[part]}")
    return lines


def describe_models(connection: Connection) -> Schema:
    """Return the schema that the models' metadata creates on the connection's engine."""
    if connection.dialect.name == "sqlite":
        scratch = create_engine("sqlite://")
        with scratch.connect() as memory:
            SQLModel.metadata.create_all(memory)
            schema = describe(memory)
        scratch.dispose()
        return schema
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql("SET LOCAL search_path TO pg_temp")
        SQLModel.metadata.create_all(connection, checkfirst=False)
        schema = describe(connection)
        savepoint.rollback()
    return schema


def describe(connection: Connection) -> Schema:
    """Return a database's schema without Alembic's table.

    The order of columns does not count: a column that a migration adds comes last.
    """
    if connection.dialect.name == "sqlite":
        return _describe_sqlite(connection)
    schema: Schema = {}
    for table, part, definition in connection.execute(text(_POSTGRESQL)):
        parts = schema.setdefault(table, {})
        if part is not None:
            parts[part] = _INDEX.sub(r"\1\2", definition)
    schema.pop("alembic_version", None)
    return schema


def _describe_sqlite(connection: Connection) -> Schema:
    schema: Schema = {}
    rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master").all()
    for kind, name, table, sql in rows:
        if table == "alembic_version" or name.startswith("sqlite_") or kind == "view":
            continue
        parts = schema.setdefault(table, {})
        if kind == "table":
            parts.update(_parts_of_table(connection, name, _plain(sql)))
        else:
            parts[f"{kind} {name}"] = _INDEX.sub(r"\1\2", _plain(sql))
    return schema


def _parts_of_table(connection: Connection, table: str, sql: str) -> dict[str, str]:
    body, _, options = sql.partition("(")[2].rpartition(")")
    parts = {"options": options.strip()} if options.strip() else {}
    extras = {}
    for part in split_at_commas(body):
        if constraint := _CONSTRAINT.fullmatch(part):
            name, definition = constraint.groups()
            parts[f"constraint {name or definition}"] = definition
        else:
            found = _COLUMN_EXTRAS.search(part)
            extras[part.partition(" ")[0]] = part[found.start() :] if found else ""
    query = 'SELECT name, type, "notnull", dflt_value FROM pragma_table_xinfo(?)'
    for column, kind, not_null, default in connection.exec_driver_sql(query, (table,)):
        parts[f"column {column}"] = (
            kind
            + (" NOT NULL" if not_null else "")
            + (f" DEFAULT {default}" if default is not None else "")
            + extras.get(column, "").replace(" NOT NULL", "")
        )
    return parts


def _plain(sql: str) -> str:
    """Return a statement without quoted names and line breaks."""
    return " ".join(sql.replace('"', "").split())


def split_at_commas(sql: str) -> list[str]:
    """Split at commas outside parentheses and strings."""
    parts, depth, quoted = [""], 0, False
    for character in sql:
        quoted ^= character == "'"
        if not quoted:
            depth += (character == "(") - (character == ")")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]

"""Checks stored rows against the models, past the constraints that a database may lack.

SQLite stores any type in any column, and tools that copy or edit a database drop constraints.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlmodel import SQLModel

from app.models import INTEGER_MAX, USER_ID_MAX

# Lines of SQLite about values, which value_problems() names with their rows.
_ABOUT_VALUES = re.compile(r"(?:NULL|TEXT|NUMERIC) value in |CHECK constraint failed in ")
# Maximum lines of SQLite's output to read, and to show.
MAX_READ, MAX_DAMAGE = 100_000, 20
# SQLite's types of the values of a column.
_TYPES = {int: ("integer",), float: ("real", "integer"), str: ("text",), datetime: ("text",)}
_DATE_AND_TIME = "%Y-%m-%d %H:%M:%S"
_TIME_LENGTH = len("2026-01-31 12:00:00")
_FRACTION = ".[0-9][0-9][0-9][0-9][0-9][0-9]"


def file_damage(connection: Connection) -> list[str]:
    """Return the lines of SQLite's integrity check, none for a sound file and for PostgreSQL."""
    if connection.dialect.name != "sqlite":
        return []
    lines = connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_READ})").scalars()
    damage = (line for line in lines if line != "ok" and not _ABOUT_VALUES.match(line))
    return [f"the file is damaged: {line}" for line in islice(damage, MAX_DAMAGE)]


def value_problems(connection: Connection) -> Iterator[str]:
    """Yield a line for each column or constraint of the models that stored rows do not fit."""
    existing = sa.inspect(connection)
    names = existing.get_table_names()
    for table in SQLModel.metadata.sorted_tables:
        stored = existing.get_columns(table.name) if table.name in names else []
        # The comparison of the schemas names missing columns.
        if {column.name for column in table.columns} <= {column["name"] for column in stored}:
            yield from _problems_of(connection, table)


def _problems_of(connection: Connection, table: sa.Table) -> Iterator[str]:
    rules = [*_rules(table, connection.dialect.name)]
    counts = sa.select(*(sa.func.count().filter(wrong) for _, wrong in rules)).select_from(table)
    key = next(iter(table.primary_key))
    for (what, wrong), count in zip(rules, connection.execute(counts).one(), strict=True):
        if count:
            first = connection.execute(sa.select(sa.func.min(key)).where(wrong)).scalar_one()
            yield f"{table.name}: {count} row(s) {what}, the first with {key.name} {first}"
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint | sa.PrimaryKeyConstraint):
            columns = [*constraint.columns]
            known = sa.and_(*(column.is_not(None) for column in columns))
            repeated = sa.select(*columns).where(known).group_by(*columns)
            repeated = repeated.having(sa.func.count() > 1)
            count = connection.scalar(sa.select(sa.func.count()).select_from(repeated.subquery()))
            if count:
                named = ", ".join(column.name for column in columns)
                yield f"{table.name}: {count} value(s) of {named} are in several rows"


def _rules(table: sa.Table, dialect: str) -> Iterator[tuple[str, sa.ColumnElement[bool]]]:
    """Yield what is wrong with rows, and the condition that finds them."""
    for column in table.columns:
        wrong = [*_wrong_values(column, dialect)]
        if not column.nullable:
            wrong.append(column.is_(None))
        if wrong:
            yield f"with an invalid {column.name}", sa.or_(*wrong)
        for key in column.foreign_keys:
            target = key.column
            is_orphan = column.not_in(sa.select(target))
            yield f"whose {column.name} is of no {target.table.name}", is_orphan
    for constraint in table.constraints:
        if isinstance(constraint, sa.CheckConstraint):
            yield f"against {constraint.name}", sa.not_(_condition(constraint.sqltext))


def _wrong_values(column: sa.Column[object], dialect: str) -> Iterator[sa.ColumnElement[bool]]:
    decorated = column.type
    plain = decorated.impl_instance if isinstance(decorated, sa.TypeDecorator) else decorated
    kind = plain.python_type
    if dialect == "sqlite":
        yield sa.func.typeof(column).not_in([*_TYPES[kind], "null"])
    if kind is int:
        is_id = column.primary_key or column.foreign_keys or isinstance(column.type, sa.BigInteger)
        largest = USER_ID_MAX if isinstance(column.type, sa.BigInteger) else INTEGER_MAX
        yield sa.not_(column.between(1 if is_id else -INTEGER_MAX, largest))
    if kind is datetime and dialect == "sqlite":
        # As SQLAlchemy writes it: it reads no other form. SQLite knows the year 0, and with a
        # modifier it turns the 30th of February into a day of March.
        text = sa.type_coerce(column, sa.String)
        date_and_time = sa.func.substr(text, 1, _TIME_LENGTH)
        calculated = sa.func.strftime(_DATE_AND_TIME, date_and_time, "+0 days")
        yield calculated.is_distinct_from(date_and_time)
        yield date_and_time < "0001"
        fraction = sa.func.substr(text, _TIME_LENGTH + 1)
        yield sa.and_(fraction != "", sa.not_(fraction.op("GLOB")(_FRACTION)))
    elif kind is datetime:
        in_range = "BETWEEN CAST('0001-01-02' AS timestamptz) AND CAST('9999-12-30' AS timestamptz)"
        yield sa.not_(_condition(f"{column.name} {in_range}"))


def _condition(sql: object) -> sa.ColumnElement[bool]:
    return sa.literal_column(f"({sql})", sa.Boolean())

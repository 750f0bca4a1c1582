"""Operations that ``alembic revision --autogenerate`` writes.

SQLite can add and drop columns and indexes. For other changes, Alembic's batch mode copies the
table into a new one that it builds by reflection, and loses AUTOINCREMENT and the directions of an
index's columns. Use batch mode only for changes that need it, and restore the lost parts.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar, cast

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.runtime.plugins import Plugin
from alembic.util import CommandError, DispatchPriority, PriorityDispatchResult
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import False_, TextClause, True_, conv
from sqlalchemy.sql.functions import now
from sqlmodel import SQLModel

from app.db.schema import describe, describe_models, split_at_commas
from app.models import text_column

# A constant default. PostgreSQL reports it with a type cast, which SQLite does not understand.
_LITERAL = re.compile(
    r"(-?\d+(?:\.\d+)?|'(?:[^']|'')*'|NULL|TRUE|FALSE)(?:::[\w ]+(?:\(\d+\))?)?", re.IGNORECASE
)
_INDEX = re.compile(r"(UNIQUE )?\((.*?)\)(?: WHERE (.*))?$", re.IGNORECASE)


_INDEX_OPS = ops.CreateIndexOp | ops.DropIndexOp
_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's
Named = TypeVar("Named", sa.Index, sa.Constraint)


class RecreatingOps(ops.ModifyTableOps):
    """Changes that require SQLite to recreate the table."""


def choose_operations(
    context: MigrationContext, _revision: object, directives: list[ops.MigrationScript]
) -> None:
    """Replace a table's changes with plain operations, or with a batch that loses nothing.

    Raises:
        CommandError: there is no change, or one that fails on a table with rows.
    """
    for script in directives:
        if script.upgrade_ops_list[0].is_empty() and script.message:  # `alembic check` has none
            raise CommandError(
                "The database schema already matches the models. Nothing was written."
            )
        for direction in (*script.upgrade_ops_list, *script.downgrade_ops_list):
            direction.ops = [new for old in direction.ops for new in _replacements(context, old)]


def _replacements(
    context: MigrationContext, operation: ops.MigrateOperation
) -> Iterator[ops.MigrateOperation]:
    if isinstance(operation, ops.CreateTableOp):
        stored, _ = _described(context, operation.table_name)
        if any("AUTOINCREMENT" in definition for definition in stored.values()):
            operation.kw["sqlite_autoincrement"] = True
    if not isinstance(operation, ops.ModifyTableOps):
        yield operation
        return
    changes, table = operation.ops, operation.table_name
    for change in changes:
        _refuse_column_without_value(change)
        _keep_collation(change)
    if all(_is_plain(change) for change in changes):
        yield from changes
        return
    changed = {change.index_name for change in changes if isinstance(change, _INDEX_OPS)}
    lost = [
        index
        for index in _by_name(SQLModel.metadata.tables[table].indexes)
        if index.name not in changed
        and not all(isinstance(part, sa.Column) for part in index.expressions)
    ]
    yield from (change for change in changes if isinstance(change, ops.DropIndexOp))
    yield from (ops.DropIndexOp.from_index(index) for index in lost)
    yield RecreatingOps(table, [change for change in changes if not isinstance(change, _INDEX_OPS)])
    yield from (ops.CreateIndexOp.from_index(index) for index in lost)
    yield from (change for change in changes if isinstance(change, ops.CreateIndexOp))


def _refuse_column_without_value(change: ops.MigrateOperation) -> None:
    if not isinstance(change, ops.AddColumnOp):
        return
    if not change.column.nullable and change.column.server_default is None:
        raise CommandError(
            f"{change.table_name}.{change.column.name} is NOT NULL and has no server default: "
            "neither an upgrade nor a downgrade can add it to a table with rows.\n"
            "Make it nullable or give it a server_default. To drop such a column, first do this "
            "in a separate revision."
        )


def _keep_collation(change: ops.MigrateOperation) -> None:
    """Give a stored text column the models' type: reflection returns one engine's half of it."""
    if isinstance(change, ops.AddColumnOp):
        change.column.type = _as_in_models(change.column.type, change.column.type)
    elif isinstance(change, ops.AlterColumnOp):
        change.existing_type = _as_in_models(change.existing_type, change.modify_type)
        change.modify_type = _as_in_models(change.modify_type, change.existing_type)


def _as_in_models(kind: Any, other: Any) -> Any:  # noqa: ANN401 - a type or none
    collation = getattr(other.dialect_impl(_POSTGRESQL), "collation", None) if other else None
    if collation and isinstance(kind, sa.VARCHAR) and kind.length:
        return text_column(kind.length).type
    return kind


def _is_plain(change: ops.MigrateOperation) -> bool:
    """Return whether SQLite has a statement for a change."""
    if isinstance(change, ops.AddColumnOp):
        default = change.column.server_default
        value = getattr(default, "arg", None)
        return default is None or (
            _LITERAL.fullmatch(value.text) is not None
            if isinstance(value, TextClause)
            else isinstance(value, str | True_ | False_)
        )
    return isinstance(change, ops.DropColumnOp | ops.CreateIndexOp | ops.DropIndexOp)


@renderers.dispatch_for(RecreatingOps)
def _render_batch(context: AutogenContext, operation: RecreatingOps) -> list[str]:
    batch = ops.ModifyTableOps(operation.table_name, operation.ops)
    lines: list[str] = renderers.dispatch(batch)(context, batch)
    table, options = operation.table_name, SQLModel.metadata.tables[operation.table_name].kwargs
    lines[0] = f"with op.batch_alter_table({table!r}, table_kwargs={dict(options)!r}) as batch_op:"
    return lines


def render_item(
    kind: str,
    item: Any,  # noqa: ANN401 - a type, a default or another item
    _context: AutogenContext,
) -> str | Literal[False]:
    """Return code with plain SQLAlchemy types and with defaults that every engine understands.

    Returns:
        The code, or False to let Alembic render the item.
    """
    if kind == "type" and isinstance(item, sa.TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    value = getattr(item, "arg", None) if kind == "server_default" else None
    if isinstance(value, True_ | False_):
        return f"sa.{value}()"
    if isinstance(value, now):
        return "sa.func.now()"
    if isinstance(value, TextClause) and (constant := _LITERAL.fullmatch(value.text)):
        return f"sa.text({constant[1]!r})"
    return False


def default_differs(
    context: MigrationContext, _stored: object, column: sa.Column[object], *_: object
) -> bool:
    """Return whether a column's default in the database differs from the models'.

    Both are compared as the engine prints them.
    """
    stored, expected = (
        parts[f"column {column.name}"].partition(" DEFAULT ")[2]
        for parts in _described(context, column.table.name)
    )
    return stored != expected


def _compare_checks(
    context: AutogenContext,
    changes: ops.ModifyTableOps,
    _schema: str | None,
    table_name: str,
    stored_table: sa.Table | None,
    table: sa.Table | None,
) -> PriorityDispatchResult:
    """Replace the CHECKs whose condition has changed under the same name."""
    stored, expected = _described(context.migration_context, table_name)
    found = {i.constraint_name for i in changes.ops if isinstance(i, ops.DropConstraintOp)}
    for check in _by_name(table.constraints if table is not None else ()):
        part = f"constraint {check.name}"
        if not isinstance(check, sa.CheckConstraint) or check.name in found or part not in stored:
            continue
        if stored[part] != expected[part]:
            condition = stored[part][stored[part].index("(") + 1 : stored[part].rindex(")")]
            old = sa.CheckConstraint(condition, name=conv(str(check.name)), table=stored_table)
            changes.ops.append(ops.DropConstraintOp.from_constraint(old))
            changes.ops.append(ops.AddConstraintOp.from_constraint(check))
    return PriorityDispatchResult.CONTINUE


def _compare_indexes(
    context: AutogenContext,
    changes: ops.ModifyTableOps,
    _schema: str | None,
    table_name: str,
    stored_table: sa.Table | None,
    table: sa.Table | None,
) -> PriorityDispatchResult:
    """Compare SQLite's indexes by their SQL, because SQLAlchemy reflects only their columns."""
    stored, expected = _described(context.migration_context, table_name)
    columns = list(stored_table.columns.keys()) if stored_table is not None else []
    indexes = {f"index {ix.name}": ix for ix in (table.indexes if table is not None else ())}
    changed = sorted(
        part
        for part in stored.keys() | expected.keys()
        if part.startswith("index ") and stored.get(part) != expected.get(part)
    )
    changes.ops = [
        *(
            ops.DropIndexOp.from_index(_index_of(table_name, columns, part, stored[part]))
            for part in changed
            if part in stored
        ),
        *(change for change in changes.ops if not isinstance(change, _INDEX_OPS)),
        *(ops.CreateIndexOp.from_index(indexes[part]) for part in changed if part in expected),
    ]
    return PriorityDispatchResult.CONTINUE


def _index_of(table_name: str, columns: list[str], part: str, definition: str) -> sa.Index:
    """Return a stored index, with the directions and the expressions of its columns."""
    ((unique, items, condition),) = _INDEX.findall(definition)
    options: dict[str, Any] = {"sqlite_where": sa.text(condition)} if condition else {}
    index = sa.Index(
        conv(part.removeprefix("index ")),
        *[item if item in columns else sa.text(item) for item in split_at_commas(items)],
        unique=bool(unique),
        **options,
    )
    sa.Table(table_name, sa.MetaData(), *[sa.Column(column) for column in columns], index)
    return index


def _described(context: MigrationContext, table_name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return a table's parts in the database and in the models."""
    connection = cast("sa.Connection", context.connection)  # env.py rejects offline mode
    schemas = describe(connection), describe_models(connection)
    stored, expected = (schema.get(table_name, {}) for schema in schemas)
    return stored, expected


def _by_name(items: Iterable[Named]) -> list[Named]:
    return sorted(items, key=lambda item: str(item.name))


_plugin = Plugin("migrations.autogenerate")
_plugin.add_autogenerate_comparator(_compare_checks, "table", priority=DispatchPriority.LAST)
_plugin.add_autogenerate_comparator(
    _compare_indexes, "table", qualifier="sqlite", priority=DispatchPriority.LAST
)
PLUGINS = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname", _plugin.name]

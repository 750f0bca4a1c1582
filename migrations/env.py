"""Runs Alembic's commands. Each is one transaction, including its DDL."""

import warnings

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlmodel import SQLModel

from app import models  # noqa: F401 - fills the metadata
from app.config import load_settings
from app.db.migrations import migration_connection, require_known_schema, upgrade_to_head
from app.errors import SetupError
from migrations.autogenerate import PLUGINS, choose_operations, default_differs, render_item

# These need a schema: create it first in a new database.
NEEDS_SCHEMA = ("check", "downgrade", "revision")
# These print the new revision after the commit.
MOVES_SCHEMA = ("upgrade", "downgrade")


def run_command(connection: Connection) -> None:
    """Run the migrations that the command asks for, or compare the schema with the models."""
    require_known_schema(connection)
    if typed_command() in NEEDS_SCHEMA and is_new(connection):
        upgrade_to_head(connection)
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        transactional_ddl=True,
        autogenerate_plugins=PLUGINS,
        compare_server_default=default_differs,
        process_revision_directives=choose_operations,
        render_as_batch=True,
        render_item=render_item,
    )
    with context.begin_transaction(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*expression-based index")
        context.run_migrations()


def revision_reached() -> str:
    """Return a description of the schema's current revision."""
    revision = context.get_context().get_current_revision()
    if revision is None:
        return "base: no tables"
    return f"{revision} (head)" if revision == context.get_head_revision() else revision


def is_new(connection: Connection) -> bool:
    """Return whether the database has never been migrated, up or down."""
    return not connection.dialect.has_table(connection, "alembic_version")


def typed_command() -> str | None:
    """Return the name of the command on Alembic's command line."""
    options = context.config.cmd_opts
    return options.cmd[0].__name__ if options else None


if context.is_offline_mode():
    raise CommandError(
        "--sql is not supported, because migrations read the database that they change."
    )

try:
    with migration_connection(load_settings().database_url) as own_connection:
        run_command(own_connection)
        reached = revision_reached()
except SetupError as error:
    raise CommandError(str(error)) from error

if typed_command() in MOVES_SCHEMA:
    context.config.print_stdout(f"Schema at {reached}")

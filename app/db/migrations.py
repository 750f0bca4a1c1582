"""Upgrades a database's schema to head by its migrations, and checks that it is at head."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from app.config import PROJECT_ROOT
from app.db.engines import MIGRATION_TIMEOUT, create_migration_engine
from app.db.errors import database_error, explained_errors
from app.errors import PermissionMissing, SchemaMissing, SetupError

# Key of an advisory lock: any number, the same in every process of the service.
MIGRATION_LOCK = 7_305_812
_PERMISSIONS = text("""
    SELECT bool_and(has_table_privilege(name, privilege))
       AND coalesce(has_sequence_privilege(pg_get_serial_sequence('movie', 'id'), 'USAGE'), true)
       AND coalesce(has_sequence_privilege(pg_get_serial_sequence('rating', 'id'), 'USAGE'), true)
    FROM unnest(ARRAY['movie', 'rating', 'movie_genre', 'movie_word']) AS name,
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
""")


def is_at_head(engine: Engine) -> bool:
    """Return whether the schema is at head, without waiting for writers."""
    with explained_errors(engine.url), engine.connect() as connection:
        require_known_schema(connection)
        return _revision(connection) == revisions().get_current_head()


def migrate(database_url: str, *, lock_timeout: float = MIGRATION_TIMEOUT) -> None:
    """Upgrade the schema to head. Safe to repeat, and from several processes at once.

    Args:
        database_url: a SQLite file or a PostgreSQL database.
        lock_timeout: seconds to wait for another process's migration.

    Raises:
        SetupError: the database cannot be used, or its revision is unknown here.
    """
    with migration_connection(database_url, lock_timeout) as connection:
        upgrade_to_head(connection)


@contextmanager
def migration_connection(
    database_url: str, lock_timeout: float = MIGRATION_TIMEOUT
) -> Iterator[Connection]:
    """Yield a connection whose single transaction can hold any migration.

    The transaction is committed at the end, or rolled back. Other migrations wait. Foreign keys are
    off on SQLite meanwhile, and are checked before the commit.

    Raises:
        SetupError: the database cannot be used, or a migration broke a foreign key.
    """
    with explained_errors(make_url(database_url)):
        engine = create_migration_engine(database_url, lock_timeout=lock_timeout)
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                connection.execute(lock, {"key": MIGRATION_LOCK})
            revision, used_ids = _revision(connection), _used_ids(connection)
            yield connection
            if connection.dialect.name == "sqlite" and _revision(connection) != revision:
                _refuse_orphans(connection)
                _keep_used_ids(connection, used_ids)


def _refuse_orphans(connection: Connection) -> None:
    if orphans := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        raise SetupError(
            f"The migration would leave {len(orphans)} row(s) that refer to nothing. "
            "It was rolled back.\nRun: uv run python scripts/db.py check"
        )


def _used_ids(connection: Connection) -> dict[str, int]:
    """Return the highest id that each AUTOINCREMENT table of SQLite has used."""
    if connection.dialect.name != "sqlite" or not inspect(connection).has_table("sqlite_sequence"):
        return {}
    query = """
        SELECT name, coalesce((SELECT seq FROM sqlite_sequence s WHERE s.name = m.name), 0)
        FROM sqlite_master m WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'
    """
    return dict(connection.exec_driver_sql(query).all())


def _keep_used_ids(connection: Connection, used_ids: dict[str, int]) -> None:
    """Restore the AUTOINCREMENT counter of recreated tables.

    Raises:
        SetupError: a table has lost AUTOINCREMENT.
    """
    after, tables = _used_ids(connection), inspect(connection).get_table_names()
    for table in used_ids.keys() & tables:
        if table not in after:
            raise SetupError(
                f"The migration would let {table} use the ids of deleted rows again. "
                "It was rolled back.\n"
                "Add table_kwargs={'sqlite_autoincrement': True} to its batch_alter_table()."
            )
        if used_ids[table] > after[table]:
            connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.exec_driver_sql(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, used_ids[table])
            )


def upgrade_to_head(connection: Connection) -> None:
    """Upgrade the schema to head in the transaction of a ``migration_connection()``.

    Raises:
        SetupError: the database's revision is unknown here.
    """
    require_known_schema(connection)
    _refuse_other_programs(connection)
    migrations = MigrationContext.configure(
        connection,
        # alembic.command.upgrade() does the same, but loads env.py.
        opts={
            "fn": lambda current, _: revisions()._upgrade_revs("head", current),  # noqa: SLF001 - no public name
            # Pass the metadata, which carries the naming convention.
            "target_metadata": SQLModel.metadata,
        },
    )
    with Operations.context(migrations):
        migrations.run_migrations()


def _refuse_other_programs(connection: Connection) -> None:
    """Raise if a SQLite file has tables, and none of them is from a migration."""
    tables = {*inspect(connection).get_table_names()} - {"alembic_version"}
    if connection.dialect.name == "sqlite" and tables and _revision(connection) is None:
        raise SetupError(
            f"The database {connection.engine.url.database} has tables of another program. "
            "Nothing was changed.\nName another file in MOVIE_DATABASE_URL."
        )


def require_known_schema(connection: Connection) -> None:
    """Raise unless this version of the service can migrate the database.

    Raises:
        SetupError: its revision is unknown here, or its encoding is not UTF-8.
    """
    _require_unicode(connection)
    current = _revision(connection)
    known = {script.revision for script in revisions().walk_revisions()}
    if current is not None and current not in known:
        raise SetupError(
            f"The database's schema is at revision {current}, which this version of the service "
            "does not know.\nIt comes from a newer version: run that one. Nothing was changed."
        )


def require_schema(connection: Connection) -> None:
    """Raise unless the schema is the one that this version of the service needs.

    Raises:
        SetupError: the database has another schema.
    """
    require_known_schema(connection)
    head, current = revisions().get_current_head(), _revision(connection)
    if current != head:
        raise SetupError(
            f"The database's schema is at {current or 'no revision'}, the service needs {head}.\n"
            "Run: uv run alembic upgrade head"
        )


def require_permissions(connection: Connection) -> None:
    """Raise unless PostgreSQL lets the service's role read and write. SQLite has no roles.

    Raises:
        PermissionMissing: a privilege is missing.
    """
    if connection.dialect.name == "postgresql" and not connection.scalar(_PERMISSIONS):
        raise PermissionMissing


def require_file(url: URL) -> None:
    """Raise unless the SQLite file exists: the driver would create it.

    Raises:
        SetupError: there is no such file, or this user may not search its folder.
    """
    if url.get_backend_name() == "sqlite" and not file_exists(url):
        raise SetupError(
            f"There is no database at {url.database}.\nRun: uv run python scripts/db.py migrate"
        )


def file_exists(url: URL) -> bool:
    """Return whether the SQLite file exists.

    Raises:
        SetupError: this user may not search its folder.
    """
    try:
        return Path(str(url.database)).exists()
    except OSError as error:
        raise SetupError(
            f"Cannot open the database file {url.database}: {error.strerror}.\n"
            "Let this user into its folder, or name another file in MOVIE_DATABASE_URL."
        ) from error


def _require_unicode(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    driver: Any = connection.connection.driver_connection
    encoding = driver.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SetupError(
            f"The database's encoding is {encoding}, which cannot hold every title.\n"
            "Create another: CREATE DATABASE movies TEMPLATE template0 ENCODING 'UTF8'"
        )


def _revision(connection: Connection) -> str | None:
    heads: tuple[str | None, ...] = (None,)
    try:
        heads = MigrationContext.configure(connection).get_current_heads()
    except DBAPIError as error:
        if not isinstance(database_error(error), SchemaMissing):
            raise
    if len(heads) > 1 or not all(isinstance(head, str) for head in heads):
        raise SetupError(
            "The table alembic_version must have the column version_num, and one row with the "
            "schema's revision.\nRestore a backup, or correct the table."
        )
    return heads[0] if heads else None


@cache
def revisions() -> ScriptDirectory:
    """Return the migrations of the project. A process reads them once."""
    return ScriptDirectory(PROJECT_ROOT / "migrations")

"""The database: connections, transactions, migrations and what a driver's error means.

The rest of the application imports these names, and no module of this package. ``DATABASE_URL``,
``engine`` and ``get_session`` are made on first use: importing them opens no database.
"""

from typing import TYPE_CHECKING

from app.db.database import Database
from app.db.engines import (
    create_db_engine,
    create_migration_engine,
    create_service_engine,
    empty_wal,
)
from app.db.errors import code_of, database_error, explained_errors, is_busy, is_disk_full
from app.db.exclusive import exclusive
from app.db.migrations import migrate, require_file
from app.db.startup import configured_engine, damage, init_db, open_session, schema_problems
from app.db.stored_values import value_problems
from app.db.transactions import after_commit, is_writing, reading, writing
from app.db.unfinished import unfinished_folder

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.dependencies import get_session

    DATABASE_URL: str
    engine: Engine
else:

    def __getattr__(name: str) -> object:
        if name == "DATABASE_URL":
            return configured_engine().url.render_as_string(hide_password=False)
        if name == "engine":
            return configured_engine()
        if name == "get_session":
            from app.dependencies import get_session  # noqa: PLC0415 - needs the web framework

            return get_session
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

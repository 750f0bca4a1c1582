"""The size of the database."""

from pathlib import Path

from sqlalchemy import text

from app.db import Database, reading

_SIZE = {
    "sqlite": text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"),
    "postgresql": text("SELECT pg_database_size(current_database())"),
}


def database_bytes(database: Database) -> dict[str, int]:
    """Return the size of each part of the database: ``main``, and on SQLite its ``wal``."""
    with database.session() as session, reading(session) as connection:
        sizes = {"main": connection.execute(_SIZE[connection.dialect.name]).scalar_one()}
        if connection.dialect.name == "sqlite":
            wal = Path(f"{connection.engine.url.database}-wal")
            sizes["wal"] = wal.stat().st_size if wal.exists() else 0
    return sizes

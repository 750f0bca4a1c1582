"""What the drivers' errors mean. No other module knows SQLite's or PostgreSQL's error codes."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError

from app.errors import (
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
    IdsExhausted,
    PermissionMissing,
    SchemaMissing,
    SequenceBehind,
    SetupError,
)

# A full disk causes these errors too: opening a database creates a -shm of this size.
_ALSO_IF_FULL, _INDEX_BYTES = ("SQLITE_IOERR", "SQLITE_CANTOPEN"), 2**15
# Keys are prefixes of SQLite error names and PostgreSQL SQLSTATEs.
_MEANINGS: dict[tuple[str, ...], type[DatabaseError]] = {
    ("SQLITE_BUSY", "SQLITE_LOCKED", "40", "55P03"): DatabaseBusy,
    # A unique constraint that the caller does not handle: another writer was faster.
    ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505"): DatabaseBusy,
    # SQLite reports a full disk as SHMSIZE if the -shm cannot grow.
    ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "53100"): DatabaseFull,
    ("2200H",): IdsExhausted,
    ("42P01", "42703"): SchemaMissing,
    ("42501",): PermissionMissing,
    ("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY"): DatabaseUnavailable,
    ("SQLITE_CORRUPT", "SQLITE_NOTADB"): DatabaseUnavailable,
    # Lost connections, too many connections, a shutdown, a standby that cannot write.
    ("08", "25006", "53", "57"): DatabaseUnavailable,
}


def code_of(error: DBAPIError) -> str | None:
    """Return SQLite's name of an error or PostgreSQL's SQLSTATE, None if the driver gave none."""
    code: str | None = getattr(error.orig, "sqlite_errorname", None)
    return code or getattr(error.orig, "sqlstate", None)


def database_error(error: DBAPIError) -> DatabaseError | None:
    """Return what a driver's error means, None if it is a bug of the service."""
    code = str(code_of(error))
    if _is_about_new_id(error.orig):
        return SequenceBehind()
    for prefixes, meaning in _MEANINGS.items():
        if code.startswith(prefixes):
            return meaning()
    # SQLite has no separate code for a missing table or column.
    if code == "SQLITE_ERROR" and str(error.orig).startswith(("no such table", "no such column")):
        return SchemaMissing()
    # Errors not caused by the statement itself.
    return DatabaseUnavailable() if isinstance(error, OperationalError) else None


def is_interrupted(error: Exception) -> bool:
    """Return whether SQLite interrupted a read that took too long or met a lock."""
    interrupts = ("SQLITE_INTERRUPT", "SQLITE_BUSY", "SQLITE_LOCKED")
    return isinstance(error, DBAPIError) and str(code_of(error)).startswith(interrupts)


def is_read_only(error: Exception | None) -> bool:
    """Return whether PostgreSQL refused a write in a read-only transaction, as on a standby."""
    return isinstance(error, DBAPIError) and code_of(error) == "25006"


def is_deadlock(error: Exception) -> bool:
    """Return whether PostgreSQL rolled this transaction back to resolve a deadlock."""
    return isinstance(error, DBAPIError) and code_of(error) == "40P01"


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether SQLite gave up waiting for another connection's lock."""
    return error.sqlite_errorname.startswith("SQLITE_BUSY")


def is_disk_full(error: sqlite3.Error) -> bool:
    """Return whether SQLite had no room to write."""
    return error.sqlite_errorname == "SQLITE_FULL"


def _is_about_new_id(error: object) -> bool:
    """Return whether PostgreSQL gave a new row an id that is taken, or no id."""
    diagnostics: Any = getattr(error, "diag", None)
    if diagnostics is None:
        return False
    if diagnostics.sqlstate == "23502":
        return bool(diagnostics.column_name == "id")
    # The columns have the same form in every language of the message. The constraint's name depends
    # on the tool that made the table.
    is_duplicate = diagnostics.sqlstate == "23505"
    return is_duplicate and "(id)=(" in (diagnostics.message_detail or "")


@contextmanager
def explained_errors(url: URL) -> Iterator[None]:
    """Turn a driver's error into a SetupError that says what to do next."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise SetupError("PostgreSQL needs its driver. Run: uv sync --extra postgres") from error
    except sqlite3.Error as error:
        raise SetupError(_explain_sqlite(error, url.database)) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise SetupError(_explain_sqlite(error.orig, url.database)) from error
        if isinstance(database_error(error), DatabaseBusy):
            raise SetupError(_locked(url.render_as_string())) from error
        if isinstance(database_error(error), SequenceBehind):
            raise SetupError(
                "An id sequence is missing or behind the stored ids. Nothing was changed.\n"
                "To get the fix, run: uv run python scripts/db.py check"
            ) from error
        reason = str(error.orig).strip().partition("\n")[0]
        if not isinstance(error, OperationalError):
            raise SetupError(
                f"The database refused a statement: {reason}.\nNothing was changed."
            ) from error
        raise SetupError(
            f"Cannot use the database {url.render_as_string()}: {reason}\n"
            "Check that the server runs and that MOVIE_DATABASE_URL is right."
        ) from error


def explain_read_only(path: str | None) -> str:
    """Return the message for a database file that this user may not write to."""
    return (
        f"The database file {path} is read-only.\nAllow this user to write to it and to its folder."
    )


def _locked(database: str | None) -> str:
    return f"Another process keeps {database} locked.\nTry again when it is done."


def _has_full_disk(path: str | None) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(Path(str(path)).parent).free < _INDEX_BYTES
    return False


def _explain_sqlite(error: sqlite3.Error, path: str | None) -> str:
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith(_ALSO_IF_FULL) and _has_full_disk(path):
        code = "SQLITE_FULL"
    explanations = {
        "SQLITE_FULL": f"The disk of {path} is full. Nothing was changed.\nMake room on it.",
        "SQLITE_CANTOPEN": f"Cannot open the database file {path}.\n"
        "Create its folder, or name another file in MOVIE_DATABASE_URL.",
        "SQLITE_NOTADB": f"{path} is not a SQLite database. Nothing was changed.\n"
        "Name another file in MOVIE_DATABASE_URL.",
        "SQLITE_CORRUPT": f"The database file {path} is damaged.\n"
        "Restore a backup: uv run python scripts/db.py restore FILE",
        "SQLITE_READONLY": explain_read_only(path),
        "SQLITE_BUSY": _locked(path),
    }
    for start, explanation in explanations.items():
        if code.startswith(start):
            return explanation
    return f"The database {path} refused a statement: {error}.\nNothing was changed."

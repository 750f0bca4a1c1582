"""Checks that reads from replicas cannot be stale, and that no write waits for a lost replica."""

import re
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from app.replicas.replicas import Replicas

# Forms of synchronous_standby_names: FIRST 2 (a, b), ANY 1 (a, b), 2 (a, b) or a, b.
_STANDBYS = re.compile(r"\s*(?:(?:(FIRST|ANY)\s+)?(\d+)\s*\((.*)\)|(.*))\s*", re.IGNORECASE)
_CONNECTED = text("""
    SELECT coalesce(array_agg(DISTINCT lower(application_name)), '{}')
    FROM pg_stat_replication WHERE coalesce(state, 'streaming') = 'streaming'
""")


def missing(primary: Engine, replicas: Replicas) -> list[str]:
    """Return a line for each problem in replication that makes reads stale or writes wait.

    Raises:
        SQLAlchemyError: the primary cannot be queried.
    """
    with primary.connect() as connection:
        lines = [*_missing_on_primary(connection)]
    # Skip replicas that have just failed: a connection attempt may take seconds.
    if not replicas.failed:
        try:
            with replicas.engine.connect() as connection:
                if not connection.scalar(text("SELECT pg_is_in_recovery()")):
                    lines.append("MOVIE_READ_DATABASE_URL names a server that is not a replica")
        except SQLAlchemyError:
            pass  # the engine's listener logs the reason
    if replicas.failed:
        lines.append("no server in MOVIE_READ_DATABASE_URL can be read from: see the log")
    return lines


def _missing_on_primary(connection: Connection) -> Iterator[str]:
    setting = connection.scalar(text("SHOW synchronous_standby_names"))
    match = _STANDBYS.fullmatch(setting or "")
    listed = match and (match[3] or match[4])
    if match is None or not listed:
        yield (
            "synchronous_standby_names is empty on the primary: "
            "a read from a replica may miss an acknowledged write"
        )
        return
    names = [name.strip().strip('"').lower() for name in listed.split(",")]
    connected = connection.scalar(_CONNECTED) or []
    expected = len(connected) if "*" in names else len(names)
    waits_for = int(match[2] or 1)
    if waits_for < expected:
        yield (
            f"synchronous_standby_names = '{setting}' waits for {waits_for} of {expected} replicas:"
            f" a read from another may miss an acknowledged write. Set it to FIRST {expected} (...)"
        )
    gone = [] if "*" in names else [name for name in names if name not in connected]
    if len(names) - len(gone) < waits_for or ("*" in names and not connected):
        yield (
            f"writes wait for {', '.join(gone) or 'a replica'}, not replicating from the primary. "
            "Start it, or remove it from synchronous_standby_names"
        )

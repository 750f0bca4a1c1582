"""Reads from PostgreSQL replicas. Writes return after synchronous replicas have applied them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection, event
from starlette.middleware import Middleware

from app.logs import log_event
from app.replicas.checks import missing
from app.replicas.middleware import ReplicaReadsMiddleware
from app.replicas.replicas import Replicas
from app.service import Service


def install(service: Service) -> None:
    """Send reads to the servers in ``read_database_url``, if it is set."""
    if service.settings.read_database_url is None:
        return
    replicas, primary = Replicas(service.settings, service.limits), service.database.engine
    event.listen(primary, "begin", _wait_for_replicas)
    service.middleware.append(Middleware(ReplicaReadsMiddleware, replicas=replicas))

    def check() -> list[str]:
        return missing(primary, replicas)

    @asynccontextmanager
    async def warned() -> AsyncIterator[None]:
        try:
            for line in await service.database.read_in_thread(check):
                log_event("replicas.incomplete", logging.WARNING, reason=line)
            yield
        finally:
            replicas.engine.dispose()

    service.readiness_checks.append(check)
    service.lifespans.append(warned)


def _wait_for_replicas(connection: Connection) -> None:
    """Make a commit wait until synchronous replicas have applied it, not only stored it."""
    # LOCAL, because a pooler may run the next transaction on another server connection.
    connection.exec_driver_sql("SET LOCAL synchronous_commit = remote_apply")

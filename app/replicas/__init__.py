"""Reads from PostgreSQL's replicas, and writes that replicas have applied when they return."""

from fastapi import FastAPI
from sqlalchemy import Connection, event

from app.replicas.middleware import ReplicaReadsMiddleware
from app.replicas.replicas import Replicas
from app.replicas.routes import router


def install(app: FastAPI) -> None:
    """Let reads go to the replicas that ``read_database_url`` names, if it names any."""
    settings = app.state.settings
    if settings.read_database_url is None:
        return
    app.state.replicas = Replicas(settings)
    event.listen(app.state.engine, "begin", _wait_for_replicas)
    app.add_middleware(ReplicaReadsMiddleware, replicas=app.state.replicas)
    app.include_router(router)


def _wait_for_replicas(connection: Connection) -> None:
    """Let the commit return when synchronous replicas show it, and not when they have stored it."""
    # For one transaction: behind a pooler, the next may run on another connection of the server's.
    connection.exec_driver_sql("SET LOCAL synchronous_commit = remote_apply")

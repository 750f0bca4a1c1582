"""``/ready`` of a service with replicas, and the same check at start-up."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from starlette.concurrency import run_in_threadpool

from app.dependencies import SessionDep
from app.logs import log_event
from app.replicas.checks import missing
from app.routes import health
from app.schemas import Status


class ReplicatedStatus(Status):
    """The service is well, and what replication lacks, a line each."""

    missing: list[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Warn at start-up of what replication lacks."""
    try:
        for line in await run_in_threadpool(missing, app.state.engine, app.state.replicas):
            log_event("replicas.incomplete", logging.WARNING, reason=line)
        yield
    finally:
        app.state.replicas.engine.dispose()


router = APIRouter(route_class=health.HealthRoute, lifespan=lifespan)


@router.get("/ready", include_in_schema=False)
def ready(session: SessionDep, request: Request) -> ReplicatedStatus:
    """What the core's ``/ready`` tells of the primary, and what replication lacks."""
    health.ready(session)
    state = request.app.state
    return ReplicatedStatus(status="ok", missing=missing(state.engine, state.replicas))

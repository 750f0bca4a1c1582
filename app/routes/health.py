"""Probes: whether the process is up and whether it can serve."""

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError

from app.dependencies import DatabaseDep, ServiceDep
from app.http import error_responses, read_errors
from app.routes.route_class import PlainRoute
from app.schemas import Readiness, Status

router = APIRouter(tags=["health"], route_class=PlainRoute)


@router.get(
    "/health", summary="Is the process up?", responses=error_responses(RequestValidationError)
)
async def health() -> Status:
    """The process answers. It does not check the database."""
    return Status(status="ok")


@router.get(
    "/ready", summary="Can it serve?", response_model_exclude_unset=True, responses=read_errors()
)
async def ready(db: DatabaseDep, service: ServiceDep) -> Readiness:
    """The database answers, has the schema of this version, and may be written to."""
    differences = await db.ready()
    found = {"differences": differences} if differences else {}
    return Readiness(status="ok", **found, **await service.readiness())

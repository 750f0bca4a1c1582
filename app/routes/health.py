"""Whether the process is up and whether it can serve."""

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError

from app.dependencies import SessionDep
from app.error_handlers import READ_ERRORS, error_responses
from app.migrate import require_permissions, require_schema
from app.routes.route_class import ServiceRoute
from app.schemas import Status
from app.transactions import reading


class HealthRoute(ServiceRoute):
    """Answers every probe in full."""

    has_etag = False


router = APIRouter(tags=["health"], route_class=HealthRoute)


@router.get(
    "/health",
    summary="Is the process up?",
    responses=error_responses(RequestValidationError),
)
async def health() -> Status:
    """The process answers. It does not look at the database."""
    return Status(status="ok")


@router.get(
    "/ready",
    summary="Can it serve?",
    responses=error_responses(*READ_ERRORS),
)
def ready(session: SessionDep) -> Status:
    """The database answers, its schema is the one that this version needs, and it may write."""
    with reading(session) as connection:
        require_schema(connection)
        require_permissions(connection)
    return Status(status="ok")

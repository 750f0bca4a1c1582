"""Whether the process is up and whether it can serve."""

from fastapi import APIRouter

from app.db import SessionDep
from app.error_handlers import documented
from app.migrate import require_schema
from app.schemas import Status

router = APIRouter(tags=["health"])


@router.get("/health", summary="Is the process up?")
async def health() -> Status:
    """The process answers. It does not look at the database."""
    return Status()


@router.get("/ready", summary="Can it serve?", responses=documented(503))
def ready(session: SessionDep) -> Status:
    """The database answers and its schema is the one that this version needs."""
    with session.begin():
        require_schema(session.connection())
    return Status()

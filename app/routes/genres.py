"""The genres."""

from fastapi import APIRouter

from app.dependencies import ReadRepositoryDep
from app.error_handlers import READ_ERRORS, error_responses
from app.read_models import GenreRead
from app.routes.route_class import ServiceRoute

router = APIRouter(prefix="/genres", tags=["movies"], route_class=ServiceRoute)


@router.get("", summary="List genres", responses=error_responses(*READ_ERRORS))
def list_genres(repository: ReadRepositoryDep) -> list[GenreRead]:
    """Every genre with the number of its movies, the most frequent first."""
    return repository.genres()

"""The genres."""

from fastapi import APIRouter

from app.dependencies import DatabaseDep, RepositoryDep
from app.http import read_errors
from app.read_models import GenreRead
from app.routes.route_class import ServiceRoute

router = APIRouter(prefix="/genres", tags=["movies"], route_class=ServiceRoute)


@router.get("", summary="List genres", responses=read_errors())
async def list_genres(repository: RepositoryDep, db: DatabaseDep) -> list[GenreRead]:
    """Every genre with the number of its movies, the most frequent first."""
    return await db.read(repository.genres)

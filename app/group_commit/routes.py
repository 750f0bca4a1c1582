"""``POST /ratings``, as the core documents it."""

from fastapi import APIRouter, Request, Response, status

from app.dependencies import RepositoryDep
from app.read_models import NewRating
from app.routes.route_class import ServiceRoute
from app.schemas import RatingCreate

router = APIRouter(route_class=ServiceRoute)


@router.post(
    "/ratings",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    include_in_schema=False,
)
async def rate_movie(rating: RatingCreate, repository: RepositoryDep, request: Request) -> None:
    """The rating counts. A user's second rating of a movie replaces the first."""
    await request.app.state.group_commit.get().add(NewRating(**rating.model_dump()), repository)

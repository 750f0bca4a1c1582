"""The ratings."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from app.dependencies import RepositoryDep
from app.error_handlers import BODY_ERRORS, READ_ERRORS, WRITE_ERRORS, error_responses
from app.errors import MovieNotFound
from app.read_models import RatingRead
from app.routes.pagination import page_headers
from app.routes.route_class import ServiceRoute
from app.schemas import RatingCreate, RatingQuery

router = APIRouter(prefix="/ratings", tags=["ratings"], route_class=ServiceRoute)


@router.get("", summary="List ratings", responses=error_responses(*READ_ERRORS))
def list_ratings(
    query: Annotated[RatingQuery, Query()],
    repository: RepositoryDep,
    request: Request,
    response: Response,
) -> list[RatingRead]:
    """A page of the ratings, by id."""
    page = repository.list_ratings(**query.model_dump())
    response.headers.update(
        page_headers(request.url, total=page.total, limit=query.limit, offset=query.offset)
    )
    return page


@router.post(
    "",
    summary="Rate a movie",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=error_responses(*WRITE_ERRORS, *BODY_ERRORS, MovieNotFound),
)
def rate_movie(rating: RatingCreate, repository: RepositoryDep) -> None:
    """The rating counts. A user's second rating of a movie replaces the first."""
    repository.add_rating(rating.movie_id, rating.score, rating.user_id)

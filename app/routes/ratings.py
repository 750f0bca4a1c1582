"""The ratings."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from app.dependencies import WRITE, RepositoryDep
from app.error_handlers import documented
from app.routes.one_hop import OneHopRoute
from app.routes.page_headers import page_headers
from app.schemas import RatingCreate, RatingQuery, RatingRead

router = APIRouter(prefix="/ratings", tags=["ratings"], route_class=OneHopRoute)


@router.get("", summary="List ratings", responses=documented(422, 503))
def list_ratings(
    query: Annotated[RatingQuery, Query()],
    repository: RepositoryDep,
    request: Request,
    response: Response,
) -> list[RatingRead]:
    """A page of the ratings by id, such as a recommender trains on."""
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
    dependencies=WRITE,
    responses=documented(400, 401, 404, 413, 422, 503, 507),
)
def rate_movie(rating: RatingCreate, repository: RepositoryDep) -> None:
    """The rating counts. A user's second rating of a movie replaces the first."""
    repository.add_rating(rating.movie_id, rating.score, rating.user_id)

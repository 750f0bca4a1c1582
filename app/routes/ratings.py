"""The ratings."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response, status

from app.dependencies import ReadRepositoryDep, RepositoryDep
from app.error_handlers import BODY_ERRORS, READ_ERRORS, WRITE_ERRORS, error_responses
from app.errors import MovieNotFound, MoviesNotFound
from app.read_models import NewRating, RatingRead
from app.routes.pagination import page_headers
from app.routes.route_class import ServiceRoute
from app.schemas import RatingCreate, RatingQuery

BATCH_PATH = "/ratings/batch"

router = APIRouter(prefix="/ratings", tags=["ratings"], route_class=ServiceRoute)


@router.get("", summary="List ratings", responses=error_responses(*READ_ERRORS))
def list_ratings(
    query: Annotated[RatingQuery, Query()],
    repository: ReadRepositoryDep,
    request: Request,
    response: Response,
) -> list[RatingRead]:
    """A page of the ratings, by id."""
    page = repository.list_ratings(**query.model_dump())
    response.headers.update(page_headers(request.url, page, limit=query.limit, offset=query.offset))
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


@router.post(
    BATCH_PATH.removeprefix(router.prefix),
    summary="Rate many movies",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=error_responses(*WRITE_ERRORS, *BODY_ERRORS, MoviesNotFound),
)
def rate_movies(
    ratings: Annotated[
        list[RatingCreate],
        Body(
            min_length=1,
            max_length=1000,
            examples=[[{"movie_id": 1, "user_id": 42, "score": 5}]],
        ),
    ],
    repository: RepositoryDep,
) -> None:
    """Store up to 1,000 ratings in their order, all or none. An error names the position."""
    repository.add_ratings([NewRating(**rating.model_dump()) for rating in ratings])

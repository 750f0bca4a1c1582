"""The ratings."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response

from app.dependencies import DatabaseDep, RepositoryDep, ServiceDep
from app.errors import MovieNotFound, MoviesNotFound
from app.http import NO_CONTENT, read_errors, write_errors
from app.read_models import NewRating, RatingRead
from app.routes.pagination import page_headers
from app.routes.route_class import ServiceRoute
from app.schemas import PastRating, RatingCreate, RatingQuery, UrlUserId

BATCH_PATH = "/ratings/batch"

router = APIRouter(prefix="/ratings", tags=["ratings"], route_class=ServiceRoute)


@router.get("", summary="List ratings", responses=read_errors())
async def list_ratings(
    query: Annotated[RatingQuery, Query()],
    repository: RepositoryDep,
    db: DatabaseDep,
    request: Request,
    response: Response,
) -> list[RatingRead]:
    """A page of the ratings, by id."""
    page = await db.read(partial(repository.list_ratings, **query.model_dump()))
    response.headers.update(page_headers(request.url, page, limit=query.limit, offset=query.offset))
    return page


@router.post(
    "", summary="Rate a movie", responses=write_errors(MovieNotFound, has_body=True), **NO_CONTENT
)
async def rate_movie(rating: RatingCreate, service: ServiceDep, repository: RepositoryDep) -> None:
    """The rating is stored. A user's second rating of a movie replaces the first."""
    await service.rate(repository, NewRating(**rating.model_dump()))


@router.post(
    BATCH_PATH.removeprefix(router.prefix),
    summary="Rate many movies",
    responses=write_errors(MoviesNotFound, has_body=True),
    **NO_CONTENT,
)
async def rate_movies(
    ratings: Annotated[
        list[PastRating],
        Body(
            min_length=1, max_length=1000, examples=[[{"movie_id": 1, "user_id": 42, "score": 5}]]
        ),
    ],
    repository: RepositoryDep,
    db: DatabaseDep,
) -> None:
    """Store up to 1,000 ratings in their order, all or none. An error names the position.

    A rating with `created_at` leaves a later one of the same user and movie as it is.
    """
    new = [NewRating(**rating.model_dump()) for rating in ratings]
    await db.write(partial(repository.add_ratings, new))


@router.delete("", summary="Withdraw a user's ratings", responses=write_errors(), **NO_CONTENT)
async def delete_ratings(
    user_id: Annotated[UrlUserId, Query(description="The user's id.", examples=[42])],
    repository: RepositoryDep,
    db: DatabaseDep,
) -> None:
    """Delete every rating of the user, all or none, and update the averages."""
    await db.write(partial(repository.remove_ratings, user_id))

"""The catalogue."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.dependencies import DatabaseDep, RepositoryDep
from app.errors import (
    DuplicateExternalId,
    DuplicateTitle,
    MovieNotFound,
    PreconditionFailed,
    RatingNotFound,
)
from app.http import NO_CONTENT, IfMatchDep, read_errors, write_errors
from app.read_models import MovieRead, RatingRead, ScoreCount
from app.routes.pagination import page_headers
from app.routes.route_class import ServiceRoute
from app.schemas import MovieCreate, MovieQuery, MovieUpdate, TopQuery, UrlId, UrlUserId

CHANGE_ERRORS = (MovieNotFound, PreconditionFailed)
DUPLICATES = (DuplicateTitle, DuplicateExternalId)

router = APIRouter(prefix="/movies", tags=["movies"], route_class=ServiceRoute)

# /movies/top is another resource: PUT is not allowed there, and its id is not invalid.
ONE_MOVIE = "/{movie_id:not_top}"
MovieId = Annotated[UrlId, Path(description="The movie's id.", examples=[1])]
UserId = Annotated[UrlUserId, Path(description="The user's id.", examples=[42])]


@router.get("", summary="List movies", responses=read_errors())
async def list_movies(
    query: Annotated[MovieQuery, Query()],
    repository: RepositoryDep,
    db: DatabaseDep,
    request: Request,
    response: Response,
) -> list[MovieRead]:
    """A page of the catalogue; `X-Total-Count` and `Link` describe the other pages.

    `X-Searched-For` is the text that was searched if nothing matches `q` as it is.
    """
    page = await db.read(partial(repository.list, **query.model_dump()))
    response.headers.update(page_headers(request.url, page, limit=query.limit, offset=query.offset))
    return page


@router.post(
    "",
    summary="Add a movie",
    status_code=status.HTTP_201_CREATED,
    responses=write_errors(*DUPLICATES, has_body=True),
)
async def create_movie(
    movie: MovieCreate,
    repository: RepositoryDep,
    db: DatabaseDep,
    request: Request,
    response: Response,
) -> MovieRead:
    """The movie as stored; `Location` is its address."""
    created = await db.write(partial(repository.create, **movie.model_dump()))
    response.headers["Location"] = f"{request.url.path}/{created.id}"
    return created


# Before /movies/{movie_id}, which would match "top" as an id.
@router.get("/top", summary="Rank movies", responses=read_errors())
async def top_movies(
    query: Annotated[TopQuery, Query()], repository: RepositoryDep, db: DatabaseDep
) -> list[MovieRead]:
    """The best movies, unrated ones last.

    `mean` ranks by average, then number of ratings, then title. `weighted` ranks by the Bayesian
    average, so that one five-star vote does not outrank three hundred good ones.
    """
    return await db.read(partial(repository.top, **query.model_dump()))


@router.get(ONE_MOVIE, summary="Get a movie", responses=read_errors(MovieNotFound))
async def get_movie(movie_id: MovieId, repository: RepositoryDep, db: DatabaseDep) -> MovieRead:
    """The movie with its average and number of ratings."""
    return await db.read(partial(repository.require, movie_id))


@router.put(
    ONE_MOVIE,
    summary="Replace a movie",
    responses=write_errors(*CHANGE_ERRORS, *DUPLICATES, has_body=True),
)
async def replace_movie(
    movie_id: MovieId,
    movie: MovieCreate,
    if_match: IfMatchDep,
    repository: RepositoryDep,
    db: DatabaseDep,
) -> MovieRead:
    """The movie with every field as sent; an omitted genre becomes Unknown."""
    change = partial(repository.update, movie_id, **movie.model_dump(), precondition=if_match)
    return await db.write(change)


@router.patch(
    ONE_MOVIE,
    summary="Change a movie",
    responses=write_errors(*CHANGE_ERRORS, *DUPLICATES, has_body=True),
)
async def change_movie(
    movie_id: MovieId,
    changes: MovieUpdate,
    if_match: IfMatchDep,
    repository: RepositoryDep,
    db: DatabaseDep,
) -> MovieRead:
    """The movie with the fields that were sent changed, the others as they were."""
    change = partial(repository.update, movie_id, **changes.model_dump(), precondition=if_match)
    return await db.write(change)


@router.delete(
    ONE_MOVIE, summary="Delete a movie", responses=write_errors(*CHANGE_ERRORS), **NO_CONTENT
)
async def delete_movie(
    movie_id: MovieId, if_match: IfMatchDep, repository: RepositoryDep, db: DatabaseDep
) -> None:
    """Delete the movie and its ratings."""
    await db.write(partial(repository.delete, movie_id, precondition=if_match))


@router.get(
    "/{movie_id}/scores", summary="Count a movie's scores", responses=read_errors(MovieNotFound)
)
async def count_scores(
    movie_id: MovieId, repository: RepositoryDep, db: DatabaseDep
) -> list[ScoreCount]:
    """The number of ratings with each score, 1 to 5. Their sum is `rating_count`."""
    return await db.read(partial(repository.scores, movie_id))


@router.get(
    "/{movie_id}/ratings/{user_id}",
    summary="Get a user's rating",
    responses=read_errors(MovieNotFound, RatingNotFound),
)
async def get_rating(
    movie_id: MovieId, user_id: UserId, repository: RepositoryDep, db: DatabaseDep
) -> RatingRead:
    """The user's rating of the movie."""
    return await db.read(partial(repository.get_rating, movie_id, user_id))


@router.delete(
    "/{movie_id}/ratings/{user_id}",
    summary="Withdraw a rating",
    responses=write_errors(MovieNotFound, RatingNotFound),
    **NO_CONTENT,
)
async def delete_rating(
    movie_id: MovieId, user_id: UserId, repository: RepositoryDep, db: DatabaseDep
) -> None:
    """Delete the user's rating and update the average."""
    await db.write(partial(repository.remove_rating, movie_id, user_id))

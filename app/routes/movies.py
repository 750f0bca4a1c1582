"""The catalogue."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.dependencies import IfMatchDep, ReadRepositoryDep, RepositoryDep
from app.error_handlers import BODY_ERRORS, DUPLICATES, READ_ERRORS, WRITE_ERRORS, error_responses
from app.errors import MovieNotFound, PreconditionFailed, RatingNotFound
from app.read_models import MovieRead, RatingRead, ScoreCount
from app.routes.pagination import page_headers
from app.routes.route_class import ServiceRoute
from app.schemas import MovieCreate, MovieQuery, MovieUpdate, TopQuery, UrlId, UrlUserId

CHANGE_ERRORS = (MovieNotFound, PreconditionFailed)

router = APIRouter(prefix="/movies", tags=["movies"], route_class=ServiceRoute)

MovieId = Annotated[UrlId, Path(description="The movie's id.", examples=[1])]
UserId = Annotated[UrlUserId, Path(description="The user's id.", examples=[42])]


@router.get("", summary="List movies", responses=error_responses(*READ_ERRORS))
def list_movies(
    query: Annotated[MovieQuery, Query()],
    repository: ReadRepositoryDep,
    request: Request,
    response: Response,
) -> list[MovieRead]:
    """A page of the catalogue; `X-Total-Count` and `Link` tell of the others."""
    page = repository.list(**query.model_dump())
    response.headers.update(page_headers(request.url, page, limit=query.limit, offset=query.offset))
    return page


@router.post(
    "",
    summary="Add a movie",
    status_code=status.HTTP_201_CREATED,
    responses=error_responses(*WRITE_ERRORS, *BODY_ERRORS, *DUPLICATES),
)
def create_movie(
    movie: MovieCreate, repository: RepositoryDep, request: Request, response: Response
) -> MovieRead:
    """The movie as stored; `Location` is its address."""
    created = repository.create(**movie.model_dump())
    response.headers["Location"] = f"{request.url.path}/{created.id}"
    return created


# Before /movies/{movie_id}, which would take "top" for an id.
@router.get("/top", summary="Rank movies", responses=error_responses(*READ_ERRORS))
def top_movies(
    query: Annotated[TopQuery, Query()], repository: ReadRepositoryDep
) -> list[MovieRead]:
    """The best movies, unrated ones last.

    `mean` ranks by average, then number of ratings, then title. `weighted` ranks by the Bayesian
    average, so that one five-star vote does not outrank three hundred good ones.
    """
    return repository.top(**query.model_dump())


@router.get(
    "/{movie_id}", summary="Get a movie", responses=error_responses(*READ_ERRORS, MovieNotFound)
)
def get_movie(movie_id: MovieId, repository: ReadRepositoryDep) -> MovieRead:
    """The movie with its average and number of ratings."""
    return repository.get(movie_id)


@router.put(
    "/{movie_id}",
    summary="Replace a movie",
    responses=error_responses(*WRITE_ERRORS, *BODY_ERRORS, *CHANGE_ERRORS, *DUPLICATES),
)
def replace_movie(
    movie_id: MovieId, movie: MovieCreate, precondition: IfMatchDep, repository: RepositoryDep
) -> MovieRead:
    """The movie with every field as sent; a genre that is left out becomes Unknown."""
    return repository.update(movie_id, **movie.model_dump(), precondition=precondition)


@router.patch(
    "/{movie_id}",
    summary="Change a movie",
    responses=error_responses(*WRITE_ERRORS, *BODY_ERRORS, *CHANGE_ERRORS, *DUPLICATES),
)
def change_movie(
    movie_id: MovieId, changes: MovieUpdate, precondition: IfMatchDep, repository: RepositoryDep
) -> MovieRead:
    """The movie with the fields that were sent changed, the others as they were."""
    return repository.update(movie_id, **changes.model_dump(), precondition=precondition)


@router.delete(
    "/{movie_id}",
    summary="Delete a movie",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=error_responses(*WRITE_ERRORS, *CHANGE_ERRORS),
)
def delete_movie(movie_id: MovieId, precondition: IfMatchDep, repository: RepositoryDep) -> None:
    """Delete the movie and its ratings."""
    repository.delete(movie_id, precondition=precondition)


@router.get(
    "/{movie_id}/scores",
    summary="Count a movie's scores",
    responses=error_responses(*READ_ERRORS, MovieNotFound),
)
def count_scores(movie_id: MovieId, repository: ReadRepositoryDep) -> list[ScoreCount]:
    """How many ratings have each score, 1 to 5; in all as many as `rating_count`."""
    return repository.scores(movie_id)


@router.get(
    "/{movie_id}/ratings/{user_id}",
    summary="Get a user's rating",
    responses=error_responses(*READ_ERRORS, MovieNotFound, RatingNotFound),
)
def get_rating(movie_id: MovieId, user_id: UserId, repository: ReadRepositoryDep) -> RatingRead:
    """The user's rating of the movie."""
    return repository.get_rating(movie_id, user_id)


@router.delete(
    "/{movie_id}/ratings/{user_id}",
    summary="Withdraw a rating",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=error_responses(*WRITE_ERRORS, MovieNotFound, RatingNotFound),
)
def delete_rating(movie_id: MovieId, user_id: UserId, repository: RepositoryDep) -> None:
    """Delete the user's rating and update the average."""
    repository.remove_rating(movie_id, user_id)

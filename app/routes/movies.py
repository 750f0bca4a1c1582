"""The catalogue."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.dependencies import NO_QUERY, WRITE, RepositoryDep
from app.error_handlers import documented
from app.routes.one_hop import OneHopRoute
from app.routes.page_headers import page_headers
from app.schemas import MovieCreate, MovieQuery, MovieRead, MovieUpdate, TopQuery, UrlId

router = APIRouter(prefix="/movies", tags=["movies"], route_class=OneHopRoute)

MovieId = Annotated[UrlId, Path(description="The movie's id.", examples=[1])]


@router.get("", summary="List movies", responses=documented(422, 503))
def list_movies(
    query: Annotated[MovieQuery, Query()],
    repository: RepositoryDep,
    request: Request,
    response: Response,
) -> list[MovieRead]:
    """A page of the catalogue; `X-Total-Count` and `Link` tell of the others."""
    page = repository.list(**query.model_dump())
    response.headers.update(
        page_headers(request.url, total=page.total, limit=query.limit, offset=query.offset)
    )
    return page


@router.post(
    "",
    summary="Add a movie",
    status_code=status.HTTP_201_CREATED,
    dependencies=WRITE,
    responses=documented(400, 401, 409, 413, 422, 503, 507),
)
def create_movie(
    movie: MovieCreate, repository: RepositoryDep, request: Request, response: Response
) -> MovieRead:
    """The movie as stored; `Location` is its address."""
    created = repository.create(**movie.model_dump())
    response.headers["Location"] = f"{request.url.path}/{created.id}"
    return created


# Before /movies/{movie_id}, which would take "top" for an id.
@router.get("/top", summary="Rank movies", responses=documented(422, 503))
def top_movies(query: Annotated[TopQuery, Query()], repository: RepositoryDep) -> list[MovieRead]:
    """The best movies, unrated ones last.

    `mean` ranks by average, then number of ratings, then title. `weighted` ranks by the Bayesian
    average, so that one five-star vote does not outrank three hundred good ones.
    """
    return repository.top(**query.model_dump())


@router.get(
    "/{movie_id}", summary="Get a movie", dependencies=NO_QUERY, responses=documented(404, 422, 503)
)
def get_movie(movie_id: MovieId, repository: RepositoryDep) -> MovieRead:
    """The movie with its average and number of ratings."""
    return repository.get(movie_id)


@router.put(
    "/{movie_id}",
    summary="Replace a movie",
    dependencies=WRITE,
    responses=documented(400, 401, 404, 409, 413, 422, 503, 507),
)
def replace_movie(movie_id: MovieId, movie: MovieCreate, repository: RepositoryDep) -> MovieRead:
    """The movie with every field as sent; a genre that is left out becomes Unknown."""
    return repository.update(movie_id, **movie.model_dump())


@router.patch(
    "/{movie_id}",
    summary="Change a movie",
    dependencies=WRITE,
    responses=documented(400, 401, 404, 409, 413, 422, 503, 507),
)
def change_movie(movie_id: MovieId, changes: MovieUpdate, repository: RepositoryDep) -> MovieRead:
    """The movie with the fields that were sent changed, the others as they were."""
    return repository.update(movie_id, **changes.model_dump(exclude_unset=True))


@router.delete(
    "/{movie_id}",
    summary="Remove a movie",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    dependencies=WRITE,
    responses=documented(401, 404, 422, 503, 507),
)
def delete_movie(movie_id: MovieId, repository: RepositoryDep) -> None:
    """The movie is gone, and its ratings with it."""
    repository.delete(movie_id)


@router.delete(
    "/{movie_id}/ratings/{user_id}",
    summary="Take a rating back",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    dependencies=WRITE,
    responses=documented(401, 404, 422, 503, 507),
)
def delete_rating(
    movie_id: MovieId,
    user_id: Annotated[UrlId, Path(description="The user's id.", examples=[42])],
    repository: RepositoryDep,
) -> None:
    """The user's rating of the movie is gone, and its average is of the others."""
    repository.remove_rating(movie_id, user_id)

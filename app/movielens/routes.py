"""The catalogue as CSV files, for pandas and recommenders."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.dependencies import ReadSessionDep
from app.error_handlers import READ_ERRORS, error_responses
from app.movielens.files import MOVIES_FILE, RATINGS_FILE
from app.movielens.repository import CatalogueReader
from app.movielens.streams import CsvStream, movies_csv, ratings_csv
from app.repository import movie_filters, rating_filters
from app.routes.route_class import ServiceRoute
from app.schemas import MovieFilters, RatingFilters


class StreamRoute(ServiceRoute):
    """Answers with a stream, whose ETag would be known at its end."""

    has_etag = False


router = APIRouter(route_class=StreamRoute)


def csv_responses(name: str, header: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route's ``responses=`` says of a file and of the errors in its place."""
    file = {
        "description": "The file.",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": header}},
        "headers": {
            "Content-Disposition": {
                "description": "The file's name.",
                "required": True,
                "schema": {"type": "string", "const": f'attachment; filename="{name}"'},
            }
        },
    }
    return {200: file, **error_responses(*READ_ERRORS)}


@router.get(
    f"/{MOVIES_FILE}",
    tags=["movies"],
    summary="Download movies",
    response_class=Response,
    responses=csv_responses(MOVIES_FILE, "movieId,title,genres\r\n1,Heat (1995),Crime\r\n"),
)
async def download_movies(
    query: Annotated[MovieFilters, Query()], session: ReadSessionDep, request: Request
) -> Response:
    """All movies that match, by id, as MovieLens' movies.csv.

    Where a title does not end in its year, there is a fourth column, `year`. A connection that
    breaks off before the end has sent a part of the file.
    """
    movies = movies_csv(CatalogueReader(session), movie_filters(**query.model_dump()))
    return await CsvStream.begin(request, MOVIES_FILE, movies)


@router.get(
    f"/{RATINGS_FILE}",
    tags=["ratings"],
    summary="Download ratings",
    response_class=Response,
    responses=csv_responses(
        RATINGS_FILE, "userId,movieId,rating,timestamp\r\n42,1,5.0,964982703\r\n"
    ),
)
async def download_ratings(
    query: Annotated[RatingFilters, Query()], session: ReadSessionDep, request: Request
) -> Response:
    """All ratings of users that match, by id, as MovieLens' ratings.csv.

    A rating that is added, changed or withdrawn meanwhile may be in the file or not; every other
    one is. A connection that breaks off before the end has sent a part of the file.
    """
    ratings = ratings_csv(CatalogueReader(session), rating_filters(**query.model_dump()))
    return await CsvStream.begin(request, RATINGS_FILE, ratings)

"""Downloads of the catalogue as CSV files, for pandas and recommenders."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from app.dependencies import DatabaseDep, SessionDep
from app.filters import rating_filters
from app.http import read_errors
from app.movielens.files import MOVIES_FILE, RATINGS_FILE
from app.movielens.repository import CatalogueRepository
from app.movielens.streams import CsvStream, movies_csv, ratings_csv
from app.routes.pagination import searched_for
from app.routes.route_class import PlainRoute
from app.schemas import MovieFilters, RatingFilters


class MoviesQuery(MovieFilters):
    """The movies to download, and the form of the file."""

    for_: Literal["spreadsheet"] | None = Field(
        default=None,
        alias="for",
        examples=["spreadsheet"],
        json_schema_extra={"maxLength": len("spreadsheet")},
        description="`spreadsheet` begins the file with a byte order mark, and puts an apostrophe "
        "before text that Excel or LibreOffice would run as a formula.",
    )


# No ETag: it would be known only at the end of the stream.
router = APIRouter(route_class=PlainRoute)


def csv_responses(name: str, header: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses=`` that document a file and the errors of its route."""
    file = {
        "description": "The file.",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": header}},
        "headers": {
            field: {
                "description": description,
                "required": True,
                "schema": {"type": "string", "const": value},
            }
            for field, description, value in (
                ("Content-Disposition", "The file's name.", f'attachment; filename="{name}"'),
                ("Cache-Control", "A copy must not be used again.", "no-cache"),
            )
        },
    }
    return {200: file, **read_errors()}


@router.get(
    f"/{MOVIES_FILE}",
    tags=["movies"],
    summary="Download movies",
    response_class=Response,
    responses=csv_responses(MOVIES_FILE, "movieId,title,genres\r\n1,Heat (1995),Crime\r\n"),
)
async def download_movies(
    query: Annotated[MoviesQuery, Query()], session: SessionDep, db: DatabaseDep, request: Request
) -> Response:
    """All matching movies by id, as MovieLens' movies.csv.

    If a title does not end in its year, there is a fourth column, `year`. If the connection breaks
    before the end, the file is incomplete.
    """
    catalogue = CatalogueRepository(session)
    filters, text = await db.stream(
        partial(catalogue.find_movies, **query.model_dump(exclude={"for_"}))
    )
    return await CsvStream.begin(
        request,
        db,
        MOVIES_FILE,
        movies_csv(catalogue, filters, for_spreadsheet=bool(query.for_)),
        searched_for(text),
    )


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
    query: Annotated[RatingFilters, Query()], session: SessionDep, db: DatabaseDep, request: Request
) -> Response:
    """All matching ratings of users by id, as MovieLens' ratings.csv.

    Ratings that are added, changed or withdrawn meanwhile may be included or not. If the connection
    breaks before the end, the file is incomplete.
    """
    ratings = ratings_csv(CatalogueRepository(session), rating_filters(**query.model_dump()))
    return await CsvStream.begin(request, db, RATINGS_FILE, ratings)

"""Similar movies and recommendations."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from app.dependencies import DatabaseDep, SessionDep, mark_cacheable
from app.errors import MovieNotFound
from app.http import read_errors
from app.read_models import MovieRead
from app.recommender.repository import Recommendation, RecommendationRepository
from app.routes.movies import MovieId, UserId
from app.routes.route_class import ServiceRoute
from app.schemas import Genre, UrlLimit, UrlYear

TAG = {"name": "recommendations", "description": "Movies to watch next."}

router = APIRouter(tags=[TAG["name"]], route_class=ServiceRoute)

Limit = Annotated[UrlLimit, Query()]


class RecommendationQuery(BaseModel):
    """The recommendations to return."""

    limit: UrlLimit = 10
    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    year_min: UrlYear | None = Field(default=None, examples=[1990])
    year_max: UrlYear | None = Field(default=None, examples=[2010])


async def get_recommendations(request: Request, session: SessionDep) -> RecommendationRepository:
    """Return the repository of recommendations for this request."""
    mark_cacheable(request, session)
    return RecommendationRepository(session)


RecommendationsDep = Annotated[RecommendationRepository, Depends(get_recommendations)]


@router.get(
    "/movies/{movie_id}/similar",
    summary="Find similar movies",
    responses=read_errors(MovieNotFound),
)
async def similar_movies(
    movie_id: MovieId, recommendations: RecommendationsDep, db: DatabaseDep, limit: Limit = 10
) -> list[MovieRead]:
    """Movies liked by people who like this one, most similar first.

    If there are too few, the weighted ranking fills the list.
    """
    return await db.read(partial(recommendations.similar, movie_id, limit=limit))


@router.get("/recommendations/{user_id}", summary="Recommend movies", responses=read_errors())
async def recommend_movies(
    user_id: UserId,
    query: Annotated[RecommendationQuery, Query()],
    recommendations: RecommendationsDep,
    db: DatabaseDep,
) -> list[Recommendation]:
    """Movies that the user has not rated, best first, each with the likes that led to it.

    If there are too few, the weighted ranking fills the list.
    """
    # Use a thread at once: many reads would exceed the event loop's deadline and be repeated.
    for_user = partial(recommendations.for_user, user_id, **query.model_dump())
    return await db.read_in_thread(for_user)

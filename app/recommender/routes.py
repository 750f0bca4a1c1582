"""Similar movies and recommendations."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from app.dependencies import ReadSessionDep
from app.error_handlers import READ_ERRORS, error_responses
from app.errors import MovieNotFound
from app.read_models import MovieRead
from app.recommender.repository import Recommendation, RecommendationRepository
from app.routes.movies import MovieId, UserId
from app.routes.route_class import ServiceRoute, run_in_thread
from app.schemas import Genre, UrlLimit

TAG = {"name": "recommendations", "description": "What to watch next."}

router = APIRouter(tags=[TAG["name"]], route_class=ServiceRoute)

Limit = Annotated[UrlLimit, Query()]


async def get_recommendations(session: ReadSessionDep) -> RecommendationRepository:
    """Return the recommendations of this request."""
    return RecommendationRepository(session)


RecommendationsDep = Annotated[RecommendationRepository, Depends(get_recommendations)]


@router.get(
    "/movies/{movie_id}/similar",
    summary="Find similar movies",
    responses=error_responses(*READ_ERRORS, MovieNotFound),
)
def similar_movies(
    movie_id: MovieId, recommendations: RecommendationsDep, limit: Limit = 10
) -> list[MovieRead]:
    """Movies that those like who like this one, most similar first.

    Where too few are known, the weighted ranking completes the list.
    """
    return recommendations.similar(movie_id, limit=limit)


@router.get(
    "/recommendations/{user_id}",
    summary="Recommend movies",
    responses=error_responses(*READ_ERRORS),
)
async def recommend_movies(
    user_id: UserId,
    recommendations: RecommendationsDep,
    request: Request,
    limit: Limit = 10,
    genre: Annotated[Genre | None, Query(examples=["Sci-Fi"])] = None,
) -> list[Recommendation]:
    """Movies that the user has not rated, best first, each with the liked movies it rests on.

    The weighted ranking completes the list where the user's likes say too little.
    """
    # Many would be interrupted on the event loop, and done again in a thread.
    for_user = partial(recommendations.for_user, user_id, limit=limit, genre=genre)
    return await run_in_thread(request.app, for_user)

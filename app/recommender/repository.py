"""RecommendationRepository: similar movies and recommendations for a user."""

from dataclasses import dataclass
from typing import Annotated, Any, Unpack

from pydantic import Field
from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from app.db import reading
from app.filters import Filters, is_rare_genre, movie_filters
from app.read_models import Id, MovieRead, MovieSelection
from app.recommender import statements
from app.repository import MovieRepository

EMPTY: Filters = {}


@dataclass(slots=True)
class Reason:
    """A movie that the user likes."""

    id: Id
    title: str


@dataclass(slots=True)
class Recommendation(MovieRead):
    """A movie that the user has not rated."""

    because: Annotated[
        list[Reason],
        Field(
            max_length=statements.MAX_REASONS,
            description="The likes that contributed most; empty if the weighted ranking did.",
        ),
    ]


class RecommendationRepository:
    """Joins the neighbours that training has stored with the current ratings.

    It works before training: the weighted ranking fills every list.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def similar(self, movie_id: int, *, limit: int = 10) -> list[MovieRead]:
        """Return the movies most similar to one.

        Raises:
            MovieNotFound: no movie has this id.
        """
        with reading(self._session) as connection:
            MovieRepository(self._session).require(movie_id)
            parameters = {"this_movie": movie_id, "row_limit": limit}
            rows = [*connection.execute(statements.SIMILAR, parameters)]
            chosen = [movie_id, *(row.id for row in rows)]
            rows += _others(connection, limit - len(rows), chosen)
        return [MovieRead(*row) for row in rows]

    def for_user(
        self, user_id: int, *, limit: int = 10, **selection: Unpack[MovieSelection]
    ) -> list[Recommendation]:
        """Return the best recommendations among the movies that a user has not rated.

        There are fewer than ``limit`` only if the user has rated all other movies that match every
        filter.
        """
        within = movie_filters(**selection)
        parameters = {"by_user": user_id, "row_limit": limit, **within}
        with reading(self._session) as connection:
            recommended = statements.recommended(connection.dialect.name, *within)
            movies: dict[int, Recommendation] = {}
            for reason_id, reason_title, *movie in connection.execute(recommended, parameters):
                if movie[0] not in movies:
                    movies[movie[0]] = Recommendation(*[*movie, []])
                movies[movie[0]].because.append(Reason(reason_id, reason_title))
            others = _others(connection, limit - len(movies), [*movies], user_id, within)
        return [*movies.values(), *(Recommendation(*[*row, []]) for row in others)]


def _others(
    connection: Connection,
    missing: int,
    chosen: list[int],
    by_user: int | None = None,
    within: Filters = EMPTY,
) -> list[Row[Any]]:
    """Return up to ``missing`` other movies by the weighted ranking, to fill a list."""
    rows: list[Row[Any]] = []
    if not missing:
        return rows
    genre_first = "of_genre" in within and is_rare_genre(connection, within, missing)
    for rated in (True, False):
        if len(rows) < missing:
            others = statements.others(*within, rated=rated, genre_first=genre_first)
            parameters = {"by_user": by_user, "chosen": chosen, "row_limit": missing - len(rows)}
            rows += connection.execute(others, parameters | within)
    return rows

"""What the repository takes and returns. Nothing is validated: the database has checked it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import Field
from typing_extensions import TypeAliasType

from app.models import (
    DEFAULT_GENRE,
    INTEGER_MAX,
    SCORE_MAX,
    SCORE_MIN,
    USER_ID_MAX,
    YEAR_MAX,
    YEAR_MIN,
)

T = TypeVar("T")

# Named types have a schema of their own in the OpenAPI document, and thereby a name in clients.
Sort = TypeAliasType("Sort", Literal[
    "title", "-title",
    "year", "-year",
    "id", "-id",
    "rating_count", "-rating_count",
    "average_rating", "-average_rating",
])  # fmt: skip
Ranking = TypeAliasType("Ranking", Literal["mean", "weighted"])

Id = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
UserId = Annotated[int, Field(ge=1, le=USER_ID_MAX)]
Year = Annotated[int, Field(ge=YEAR_MIN, le=YEAR_MAX)]
Score = Annotated[int, Field(ge=SCORE_MIN, le=SCORE_MAX)]
Average = Annotated[float, Field(ge=SCORE_MIN, le=SCORE_MAX)]
Count = Annotated[int, Field(ge=0, le=INTEGER_MAX)]


class NewMovie(NamedTuple):
    """A movie to be stored. ``genres`` take the place of ``genre``."""

    title: str
    year: int
    genre: str = DEFAULT_GENRE
    genres: Sequence[str] | None = None
    imdb_id: str | None = None
    tmdb_id: int | None = None


class NewRating(NamedTuple):
    """A score to be stored, 1 to 5. Without a user it is anonymous.

    Where many requests are stored together, ``trace_id`` tells whose rating it is.
    """

    movie_id: int
    score: int
    user_id: int | None = None
    trace_id: str | None = None


@dataclass(slots=True)
class MovieRead:
    """A movie with its rating aggregates."""

    id: Id
    title: str
    year: Year
    genre: Annotated[str, Field(description="The first of the genres.")]
    genres: list[str]
    imdb_id: Annotated[str | None, Field(examples=["tt0133093"])]
    tmdb_id: Id | None
    average_rating: Annotated[Average | None, Field(description="Mean score; null when unrated.")]
    rating_count: Count


@dataclass(slots=True)
class RatingRead:
    """A rating."""

    id: Id
    movie_id: Id
    user_id: Annotated[UserId | None, Field(description="null: anonymous.")]
    score: Score
    created_at: Annotated[datetime, Field(description="When it was given, UTC.")]


@dataclass(slots=True)
class GenreRead:
    """A genre, and how many movies have it."""

    genre: str
    movie_count: Count


@dataclass(slots=True)
class ScoreCount:
    """A score, and how many ratings of a movie have it."""

    score: Score
    count: Count


class Page(list[T]):
    """A slice of a longer list.

    Attributes:
        total: how long that list is.
        next: the argument that asks for the next slice, empty on the last.
    """

    def __init__(self, items: Iterable[T], total: int) -> None:
        super().__init__(items)
        self.total = total
        self.next: dict[str, int] = {}

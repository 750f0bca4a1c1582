"""What the repository takes and returns. Nothing is validated: the database has checked it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import Field

from app.models import DEFAULT_GENRE

T = TypeVar("T")

Sort = Literal[
    "title", "-title",
    "year", "-year",
    "id", "-id",
    "rating_count", "-rating_count",
    "average_rating", "-average_rating",
]  # fmt: skip
Ranking = Literal["mean", "weighted"]


class NewMovie(NamedTuple):
    """A movie to be stored."""

    title: str
    year: int
    genre: str = DEFAULT_GENRE


@dataclass(slots=True)
class MovieRead:
    """A movie with its rating aggregates."""

    id: int
    title: str
    year: int
    genre: str
    average_rating: Annotated[float | None, Field(description="Mean score; null when unrated.")]
    rating_count: int


@dataclass(slots=True)
class RatingRead:
    """A rating."""

    id: int
    movie_id: int
    user_id: Annotated[int | None, Field(description="null: anonymous.")]
    score: int
    created_at: Annotated[datetime, Field(description="When it was given, UTC.")]


class Page(list[T]):
    """A slice of a longer list, which knows how long that is."""

    def __init__(self, items: Iterable[T], total: int) -> None:
        super().__init__(items)
        self.total = total

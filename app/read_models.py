"""What the repository takes and returns. It is not validated: the database has checked it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, TypedDict, TypeVar

from pydantic import Field
from typing_extensions import TypeAliasType

from app.models import INTEGER_MAX, SCORE_MAX, SCORE_MIN, USER_ID_MAX, YEAR_MAX, YEAR_MIN
from app.text import DEFAULT_GENRE

T = TypeVar("T")

# Named types have separate schemas in the OpenAPI document, and therefore names in clients.
Sort = TypeAliasType("Sort", Literal[
    "relevance", "-relevance",
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


class MovieChanges(TypedDict, total=False):
    """Fields of a movie to change. None removes an external id.

    ``genre`` changes the first genre and keeps the others; ``genres`` replace all.
    """

    title: str
    year: int
    genre: str
    genres: Sequence[str]
    imdb_id: str | None
    tmdb_id: int | None


class NewMovie(NamedTuple):
    """A movie to store. ``genres``, if given, replace ``genre``."""

    title: str
    year: int
    genre: str = DEFAULT_GENRE
    genres: Sequence[str] | None = None
    imdb_id: str | None = None
    tmdb_id: int | None = None


class MovieSelection(TypedDict, total=False):
    """Filters of movies, all of which must match; None does not filter.

    ``genre`` matches any genre of a movie. ``q`` is words of a title in any order; the last word
    may be unfinished. docs/api.md describes searches.
    """

    genre: str | None
    q: str | None
    year_min: int | None
    year_max: int | None
    imdb_id: str | None
    tmdb_id: int | None


class NewRating(NamedTuple):
    """A score to store, 1 to 5. Without a user it is anonymous.

    ``trace_id`` is the id of its request, if ratings of several requests are stored together.
    ``created_at`` is when the user rated the movie, if not now.
    """

    movie_id: int
    score: int
    user_id: int | None = None
    trace_id: str | None = None
    created_at: datetime | None = None


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


# Checks the stored movie, and raises if the caller's precondition fails.
Precondition = Callable[[MovieRead], None]


@dataclass(slots=True)
class RatingRead:
    """A rating."""

    id: Id
    movie_id: Id
    user_id: Annotated[UserId | None, Field(description="null: anonymous.")]
    score: Score
    created_at: Annotated[datetime, Field(description="Time of the rating, UTC.")]


@dataclass(slots=True)
class GenreRead:
    """A genre and the number of its movies."""

    genre: str
    movie_count: Count


@dataclass(slots=True)
class ScoreCount:
    """A score and the number of a movie's ratings with it."""

    score: Score
    count: Count


class Page(list[T]):
    """A slice of a longer list.

    Attributes:
        total: the length of that list.
        searched_for: the text that was searched instead of the caller's, if any.
        next: the query parameter of the next slice, empty on the last.
    """

    def __init__(self, items: Iterable[T], total: int, searched_for: str | None = None) -> None:
        super().__init__(items)
        self.total = total
        self.searched_for = searched_for
        self.next: dict[str, int] = {}

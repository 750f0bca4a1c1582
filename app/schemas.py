"""The payloads: what a client may send and what it is sent. No tables here."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from app.models import (
    DEFAULT_GENRE,
    GENRE_MAX_LENGTH,
    SCORE_MAX,
    SCORE_MIN,
    TITLE_MAX_LENGTH,
    YEAR_MAX,
    YEAR_MIN,
)

# PostgreSQL's INTEGER ends here, and larger values crash both engines' drivers.
INTEGER_MAX = 2**31 - 1


def _normalise_space(value: object) -> object:
    """Trim text and make one space of each run of white space. Other types pass through."""
    if not isinstance(value, str):
        return value
    if "\0" in value:
        # PostgreSQL cannot store it and SQLite's length() stops at it.
        raise ValueError("must not contain a NUL character")
    return " ".join(value.split())


def _normalise_genre(value: object) -> object:
    """Title-case each word: sci-fi becomes Sci-Fi and CHILDREN'S becomes Children's."""
    value = _normalise_space(value)
    if not isinstance(value, str):
        return value
    if "|" in value:
        # It separates the genres of a movie in MovieLens files.
        raise ValueError("must be a single genre, without '|'")
    return "".join(word.capitalize() for word in re.split(r"([\s/&-])", value))


def _refuse_odd_digits(value: object) -> object:
    """Refuse what int() takes and a URL should not: '+1', '1_0', ' 1' and digits of any script."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("must be a whole number, written in digits")
    return value


Title = Annotated[
    str, Field(min_length=1, max_length=TITLE_MAX_LENGTH), BeforeValidator(_normalise_space)
]
Genre = Annotated[
    str, Field(min_length=1, max_length=GENRE_MAX_LENGTH), BeforeValidator(_normalise_genre)
]
SearchText = Annotated[str, Field(max_length=TITLE_MAX_LENGTH), BeforeValidator(_normalise_space)]
# In a JSON body a number is a number: "2000", 2000.0 and true are refused.
Year = Annotated[int, Field(strict=True, ge=YEAR_MIN, le=YEAR_MAX)]
Score = Annotated[int, Field(strict=True, ge=SCORE_MIN, le=SCORE_MAX)]
Id = Annotated[int, Field(strict=True, ge=1, le=INTEGER_MAX)]
# In a path or a query a number comes as text.
_digits = BeforeValidator(_refuse_odd_digits)
UrlInt = Annotated[int, _digits]
UrlId = Annotated[int, Field(ge=1, le=INTEGER_MAX), _digits]
UrlYear = Annotated[int, Field(ge=YEAR_MIN, le=YEAR_MAX), _digits]
UrlCount = Annotated[int, Field(ge=0, le=INTEGER_MAX), _digits]

Sort = Literal[
    "title", "-title",
    "year", "-year",
    "id", "-id",
    "rating_count", "-rating_count",
    "average_rating", "-average_rating",
]  # fmt: skip
Ranking = Literal["mean", "weighted"]


class MovieCreate(BaseModel):
    """A movie as a client sends it whole. Unknown fields are ignored."""

    title: Title
    year: Year
    genre: Genre = DEFAULT_GENRE

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"title": "Arrival", "year": 2016, "genre": "Sci-Fi"}]}
    )


def _without_default(schema: JsonDict) -> None:
    schema.pop("default")


class MovieUpdate(BaseModel):
    """The fields of a movie to change. A field that is left out stays; null is refused."""

    # The defaults are never read, since callers dump with exclude_unset. With `| None` in place
    # of them, a null that was sent would pass for a field that was not.
    title: Title = Field(default="", json_schema_extra=_without_default)
    year: Year = Field(default=0, json_schema_extra=_without_default)
    genre: Genre = Field(default="", json_schema_extra=_without_default)

    model_config = ConfigDict(json_schema_extra={"examples": [{"genre": "Drama"}]})


@dataclass(slots=True)
class MovieRead:
    """A movie as the service answers it. A dataclass: the database has checked what is in it."""

    id: int
    title: str
    year: int
    genre: str
    average_rating: Annotated[float | None, Field(description="Mean score; null when unrated.")]
    rating_count: int


class RatingCreate(BaseModel):
    """A user's score for a movie."""

    movie_id: Id
    user_id: Id | None = Field(
        default=None, description="Left out or null: anonymous, and each such rating counts."
    )
    score: Score

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"movie_id": 1, "user_id": 42, "score": 5}]}
    )


@dataclass(slots=True)
class RatingRead:
    """A rating as the service answers it."""

    id: int
    movie_id: int
    user_id: Annotated[int | None, Field(description="null: anonymous.")]
    score: int
    created_at: Annotated[datetime, Field(description="When it was given, UTC.")]


class PageQuery(BaseModel):
    """Which part of a list to answer. An unknown parameter is refused, so no typo is ignored."""

    limit: Annotated[int, Field(ge=1, le=1000), _digits] = 100
    offset: UrlCount = 0

    model_config = ConfigDict(extra="forbid")


class MovieQuery(PageQuery):
    """Filters and order of the catalogue."""

    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    q: SearchText | None = Field(
        default=None, description="Part of the title, in any case.", examples=["matrix"]
    )
    year_min: UrlYear | None = Field(default=None, examples=[1990])
    year_max: UrlYear | None = Field(default=None, examples=[2010])
    sort: Sort = Field(
        default="title",
        description="`-` before the name is the exact reverse. Unrated is below every average.",
    )


class TopQuery(BaseModel):
    """Which ranking to answer, of which movies."""

    limit: Annotated[int, Field(ge=1, le=100), _digits] = 5
    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    min_ratings: UrlCount = 0
    ranking: Ranking = "mean"

    model_config = ConfigDict(extra="forbid")


class RatingQuery(PageQuery):
    """Filters of the ratings."""

    movie_id: UrlId | None = Field(default=None, examples=[1])
    user_id: UrlId | None = Field(default=None, examples=[42])


class Status(BaseModel):
    """The service is well."""

    status: Literal["ok"] = "ok"

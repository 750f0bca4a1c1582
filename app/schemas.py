"""Request payloads: what a client sends. No tables here."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    MISSING,
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from app import text
from app.models import YEAR_MIN, utc_now
from app.read_models import Average, Count, Id, Ranking, Score, Sort, UserId, Year

MAX_DIGITS = 20
# Clocks differ: a time that is ahead by at most this counts as now.
CLOCK_SKEW = timedelta(seconds=60)
EARLIEST = datetime(YEAR_MIN, 1, 1, tzinfo=UTC)

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def _text(normalize: Callable[[str], str]) -> WrapValidator:
    """Return a validator that normalizes text before its bounds are checked.

    It keeps the type of normalized text, which the repository does not normalize again.
    """

    def validate(value: object, check: ValidatorFunctionWrapHandler) -> object:
        if not isinstance(value, str):
            return check(value)
        # Count characters that normalization removes, as the OpenAPI document says.
        check(value.strip())
        try:
            normalized = normalize(value)
        except text.TooLong as error:
            raise PydanticKnownError("string_too_long", {"max_length": error.max_length}) from None
        check(normalized)
        return normalized

    return WrapValidator(validate)


def _read_digits(value: object) -> object:
    """Accept digits only: int() would also take '+1', '1_0', ' 1' and digits of other scripts."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch("-?[0-9]+", value):
        raise ValueError("must be a whole number, written in digits")
    # int() refuses thousands of digits. The first MAX_DIGITS already exceed every bound.
    number = int(value.lstrip("-0")[:MAX_DIGITS] or "0")
    return -number if value.startswith("-") else number


def _read_time(value: object) -> datetime:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("must be a time with an offset, such as 2026-01-31T12:00:00Z")
    time, now = datetime.fromisoformat(value), utc_now()
    if not EARLIEST <= time <= now + CLOCK_SKEW:
        raise ValueError(f"must be a time from {YEAR_MIN} to now")
    return min(time, now).astimezone(UTC)


def _like(pattern: str, max_length: int) -> Any:  # noqa: ANN401 - as Field()
    return Field(max_length=max_length, json_schema_extra={"pattern": pattern})


Title = Annotated[
    str, _like(text.TITLE_PATTERN, text.TITLE_MAX_LENGTH), _text(text.normalize_title)
]
Genre = Annotated[
    str, _like(text.GENRE_PATTERN, text.GENRE_MAX_LENGTH), _text(text.normalize_genre)
]
FirstGenre = Annotated[Genre | MISSING, Field(description="The first of the genres.")]
_Genres = Annotated[
    list[Genre],
    Field(min_length=1, max_length=text.GENRES_MAX),
    AfterValidator(text.normalize_genres),
]
Genres = Annotated[_Genres | MISSING, Field(description="All genres; `genre` may be omitted.")]
ImdbId = Annotated[
    str,
    _like(text.IMDB_ID_PATTERN, text.SLACK * text.IMDB_ID_MAX_LENGTH),
    Field(examples=["tt0133093"]),
    _text(text.normalize_imdb_id),
]
SearchText = Annotated[
    str, _like(text.TEXT_PATTERN, text.TITLE_MAX_LENGTH), _text(text.normalize_text)
]
CreatedAt = Annotated[
    datetime,
    BeforeValidator(_read_time),
    Field(
        description="A time with an offset, from 1900 to now. Omitted or null: now.",
        examples=["2020-01-31T12:00:00Z"],
    ),
]
# Accepted and ignored, so a client can send back what it read.
_read_only = Field(
    exclude=True, description="Ignored in a request.", json_schema_extra={"readOnly": True}
)
# Numbers in a path or a query arrive as text.
_digits = BeforeValidator(_read_digits)
UrlInt = Annotated[int, _digits]
UrlId = Annotated[Id, _digits]
UrlUserId = Annotated[UserId, _digits]
UrlYear = Annotated[Year, _digits]
UrlCount = Annotated[Count, _digits]
UrlLimit = Annotated[int, Field(ge=1, le=100), _digits]


def _with_examples(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [*examples]})


class Payload(BaseModel):
    """A JSON body, whose numbers must be numbers: "2000" and true are refused."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        """Accept 5.0 for 5: to JSON they are the same number, and many programs write the first."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


class _MoviePayload(Payload):
    """The fields and checks shared by a new movie and a change."""

    id: Annotated[SkipValidation[Id | MISSING], _read_only] = MISSING
    average_rating: Annotated[SkipValidation[Average | MISSING | None], _read_only] = MISSING
    rating_count: Annotated[SkipValidation[Count | MISSING], _read_only] = MISSING

    @field_validator("genres", check_fields=False)
    @classmethod
    def _begins_with_genre(cls, genres: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("genre", genres[0]) not in (genres[0], MISSING):
            raise ValueError("must begin with genre, or omit genre")
        return genres


class MovieCreate(_MoviePayload):
    """A complete movie. Without a genre it is Unknown."""

    title: Title
    year: Year
    genre: FirstGenre = MISSING
    genres: Genres = MISSING
    imdb_id: ImdbId | None = None
    tmdb_id: Id | None = None

    model_config = _with_examples(
        {"title": "Arrival", "year": 2016, "genre": "Sci-Fi"},
        {"title": "Heat", "year": 1995, "genres": ["Crime", "Thriller"], "imdb_id": "tt0113277"},
    )

    @model_validator(mode="after")
    def _has_genres(self) -> Self:
        if self.genres is MISSING:
            self.genres = [text.DEFAULT_GENRE if self.genre is MISSING else self.genre]
        return self


class MovieUpdate(_MoviePayload):
    """The fields of a movie to change. Omitted fields stay the same.

    null removes an external id and is invalid for other fields. `genre` alone changes the first
    genre and keeps the others.
    """

    title: Title | MISSING = MISSING
    year: Year | MISSING = MISSING
    genre: FirstGenre = MISSING
    genres: Genres = MISSING
    imdb_id: ImdbId | MISSING | None = MISSING
    tmdb_id: Id | MISSING | None = MISSING

    model_config = _with_examples({"genre": "Drama"})


class RatingCreate(Payload):
    """A user's score for a movie."""

    id: Annotated[SkipValidation[Id | MISSING], _read_only] = MISSING
    movie_id: Id
    user_id: UserId | None = Field(
        default=None, description="Omitted or null: anonymous, and each such rating counts."
    )
    score: Score

    model_config = _with_examples({"movie_id": 1, "user_id": 42, "score": 5})


class PastRating(RatingCreate):
    """A user's score for a movie, and when it was given."""

    created_at: CreatedAt | None = None


class PageQuery(BaseModel):
    """The part of a list to return."""

    limit: Annotated[int, Field(ge=1, le=1000), _digits] = 100
    offset: UrlCount = 0


class MovieFilters(BaseModel):
    """The movies to return."""

    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    q: SearchText | None = Field(
        default=None,
        description="Words of the title in any order; the last may be unfinished. Case, accents, "
        "punctuation and a few typos do not matter. A year limits the results to it.",
        examples=["the matrix"],
    )
    year_min: UrlYear | None = Field(default=None, examples=[1990])
    year_max: UrlYear | None = Field(default=None, examples=[2010])
    imdb_id: ImdbId | None = None
    tmdb_id: UrlId | None = Field(default=None, examples=[603])


class MovieQuery(MovieFilters, PageQuery):
    """Filters and order of the catalogue."""

    sort: Sort | None = Field(
        default=None,
        description="`-` before the name reverses the order. Unrated movies sort below rated ones. "
        "If left out, `relevance` with `q`, and `title` without.",
    )

    @field_validator("sort")
    @classmethod
    def _relevance_needs_search(cls, sort: Sort | None, info: ValidationInfo) -> Sort | None:
        if sort in {"relevance", "-relevance"} and not info.data.get("q"):
            raise ValueError("relevance needs q, the text to search for")
        return sort


class TopQuery(BaseModel):
    """The ranking to return, and its movies."""

    limit: UrlLimit = 5
    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    year_min: UrlYear | None = Field(default=None, examples=[1990])
    year_max: UrlYear | None = Field(default=None, examples=[2010])
    min_ratings: UrlCount = 0
    ranking: Ranking = "mean"


class RatingFilters(BaseModel):
    """The ratings to return."""

    movie_id: UrlId | None = Field(default=None, examples=[1])
    user_id: UrlUserId | None = Field(default=None, examples=[42])


class RatingQuery(RatingFilters, PageQuery):
    """The part of the ratings to return."""

    after: UrlCount | None = Field(
        default=None,
        description="Start after the rating with this id. Such a page costs the same anywhere in "
        "the list; it cannot be combined with `offset`.",
        examples=[0],
    )

    @field_validator("after")
    @classmethod
    def _one_position(cls, after: int | None, info: ValidationInfo) -> int | None:
        if after is not None and info.data.get("offset"):
            raise ValueError("cannot be combined with offset")
        return after


class Status(BaseModel):
    """The service works."""

    status: Literal["ok"]


class Readiness(Status):
    """The service can serve."""

    differences: list[str] = Field(
        default=[], description="How constraints, indexes and types differ from the models."
    )
    missing: list[str] = Field(
        default=[], description="With replicas: what replication lacks, one line each."
    )

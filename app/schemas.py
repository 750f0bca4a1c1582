"""Request payloads: what a client may send. No tables here."""

import re
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import (
    MISSING,
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from app.models import (
    DEFAULT_GENRE,
    GENRE_MAX_LENGTH,
    GENRES_MAX,
    IMDB_ID_MAX_LENGTH,
    IMDB_ID_MIN_LENGTH,
    TITLE_MAX_LENGTH,
    normalize_genre,
    normalize_genres,
    normalize_imdb_id,
    normalize_text,
    normalize_title,
)
from app.read_models import Count, Id, Ranking, Score, Sort, UserId, Year

MAX_DIGITS = 20


def _text(normalize: Callable[[str], str]) -> BeforeValidator:
    """Return a validator that normalizes text, and leaves other types for Pydantic to reject."""
    return BeforeValidator(lambda value: normalize(value) if isinstance(value, str) else value)


def _read_digits(value: object) -> object:
    """Read a number, but not what int() takes beside digits: '+1', '1_0', ' 1', other scripts."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch("-?[0-9]+", value):
        raise ValueError("must be a whole number, written in digits")
    # int() reads no thousands of digits. So many are beyond any bound, however they go on.
    number = int(value.lstrip("-0")[:MAX_DIGITS] or "0")
    return -number if value.startswith("-") else number


Title = Annotated[str, Field(min_length=1, max_length=TITLE_MAX_LENGTH), _text(normalize_title)]
Genre = Annotated[str, Field(min_length=1, max_length=GENRE_MAX_LENGTH), _text(normalize_genre)]
FirstGenre = Annotated[Genre | MISSING, Field(description="The first of the genres.")]
_Genres = Annotated[
    list[Genre], Field(min_length=1, max_length=GENRES_MAX), AfterValidator(normalize_genres)
]
Genres = Annotated[_Genres | MISSING, Field(description="All of them; `genre` may be left out.")]
ImdbId = Annotated[
    str,
    Field(min_length=IMDB_ID_MIN_LENGTH, max_length=IMDB_ID_MAX_LENGTH, examples=["tt0133093"]),
    _text(normalize_imdb_id),
]
SearchText = Annotated[str, Field(max_length=TITLE_MAX_LENGTH), _text(normalize_text)]
# In a path or a query a number comes as text.
_digits = BeforeValidator(_read_digits)
UrlInt = Annotated[int, _digits]
UrlId = Annotated[Id, _digits]
UrlUserId = Annotated[UserId, _digits]
UrlYear = Annotated[Year, _digits]
UrlCount = Annotated[Count, _digits]
UrlLimit = Annotated[int, Field(ge=1, le=100), _digits]


class Payload(BaseModel):
    """A JSON body. In one a number is a number: "2000", 2000.0 and true are refused."""

    model_config = ConfigDict(strict=True)


class _MoviePayload(Payload):
    """What a new movie and a changed one have in common."""

    @field_validator("genres", check_fields=False)
    @classmethod
    def _begins_with_genre(cls, genres: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("genre", genres[0]) not in (genres[0], MISSING):
            raise ValueError("must begin with genre, or leave genre out")
        return genres


class MovieCreate(_MoviePayload):
    """A movie as a client sends it whole. Unknown fields are ignored.

    Without a genre it is Unknown.
    """

    title: Title
    year: Year
    genre: FirstGenre = MISSING
    genres: Genres = MISSING
    imdb_id: ImdbId | None = None
    tmdb_id: Id | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"title": "Arrival", "year": 2016, "genre": "Sci-Fi"},
                {
                    "title": "Heat",
                    "year": 1995,
                    "genres": ["Crime", "Thriller"],
                    "imdb_id": "tt0113277",
                    "tmdb_id": 949,
                },
            ]
        }
    )

    @model_validator(mode="after")
    def _has_genres(self) -> Self:
        if self.genres is MISSING:
            self.genres = [DEFAULT_GENRE if self.genre is MISSING else self.genre]
        return self


class MovieUpdate(_MoviePayload):
    """The fields of a movie to change. A field that is left out stays.

    null removes an external id and is rejected elsewhere. `genre` alone changes the first genre and
    keeps the others.
    """

    title: Title | MISSING = MISSING
    year: Year | MISSING = MISSING
    genre: FirstGenre = MISSING
    genres: Genres = MISSING
    imdb_id: ImdbId | MISSING | None = MISSING
    tmdb_id: Id | MISSING | None = MISSING

    model_config = ConfigDict(json_schema_extra={"examples": [{"genre": "Drama"}]})


class RatingCreate(Payload):
    """A user's score for a movie."""

    movie_id: Id
    user_id: UserId | None = Field(
        default=None, description="Left out or null: anonymous, and each such rating counts."
    )
    score: Score

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"movie_id": 1, "user_id": 42, "score": 5}]}
    )


class PageQuery(BaseModel):
    """Which part of a list to answer."""

    limit: Annotated[int, Field(ge=1, le=1000), _digits] = 100
    offset: UrlCount = 0


class MovieFilters(BaseModel):
    """Which movies to answer."""

    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    q: SearchText | None = Field(
        default=None,
        description="Words or parts of words that the title has, in any order. Case, accents and "
        "punctuation do not matter.",
        examples=["the matrix"],
    )
    year_min: UrlYear | None = Field(default=None, examples=[1990])
    year_max: UrlYear | None = Field(default=None, examples=[2010])
    imdb_id: ImdbId | None = None
    tmdb_id: UrlId | None = Field(default=None, examples=[603])


class MovieQuery(MovieFilters, PageQuery):
    """Filters and order of the catalogue."""

    sort: Sort = Field(
        default="title",
        description="`-` before the name is the exact reverse. Unrated is below every average.",
    )


class TopQuery(BaseModel):
    """Which ranking to answer, of which movies."""

    limit: UrlLimit = 5
    genre: Genre | None = Field(default=None, examples=["Sci-Fi"])
    min_ratings: UrlCount = 0
    ranking: Ranking = "mean"


class RatingFilters(BaseModel):
    """Which ratings to answer."""

    movie_id: UrlId | None = Field(default=None, examples=[1])
    user_id: UrlUserId | None = Field(default=None, examples=[42])


class RatingQuery(RatingFilters, PageQuery):
    """Which part of the ratings to answer."""

    after: UrlCount | None = Field(
        default=None,
        description="Start after the rating with this id. Every such page costs the same, however "
        "far into the list; it cannot be combined with `offset`.",
        examples=[0],
    )

    @field_validator("after")
    @classmethod
    def _one_position(cls, after: int | None, info: ValidationInfo) -> int | None:
        if after is not None and info.data.get("offset"):
            raise ValueError("cannot be combined with offset")
        return after


class Status(BaseModel):
    """The service is well."""

    status: Literal["ok"]

"""The tables, and the form in which text is stored. Changing a table takes a migration.

A SQLModel table does not validate when it is constructed, so request payloads have classes
of their own (schemas.py) and every bound is also a named CHECK here.
"""

# No `from __future__ import annotations` here: it breaks SQLModel relationships.
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from unicodedata import category, normalize

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    delete,
    event,
    insert,
    inspect,
    text,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlmodel import Column, Field, Integer, Relationship, SQLModel, col

from app.search import SEARCH_KEY_MAX_LENGTH, search_key

# Constraints need names to be altered or dropped later. Set before any table is declared.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

DEFAULT_GENRE = "Unknown"
TITLE_MAX_LENGTH = 300
GENRE_MAX_LENGTH = 100
# What separates genres in MovieLens files, and here.
GENRE_SEPARATOR = "|"
GENRES_MAX = 20
# "tt" and seven digits or, since 2019, more.
IMDB_ID_MIN_LENGTH, IMDB_ID_MAX_LENGTH = 9, 12
# The largest INTEGER of PostgreSQL; larger values crash both drivers.
INTEGER_MAX = 2**31 - 1
# The largest integer that JavaScript and JSON clients hold exactly; chat and login ids need it.
USER_ID_MAX = 2**53 - 1
YEAR_MIN, YEAR_MAX = 1900, 2100
SCORE_MIN, SCORE_MAX = 1, 5


def text_column(length: int, **options: Any) -> Column[str]:  # noqa: ANN401 - Column's own
    """Return a column of text that sorts by code point on every engine.

    PostgreSQL would sort by the database's locale, SQLite sorts by bytes of UTF-8. Collation "C"
    makes PostgreSQL do the same.
    """
    kind = String(length).with_variant(String(length, collation="C"), "postgresql")
    return Column(kind, nullable=False, **options)


def utc_now() -> datetime:
    """Return the current time. It is timezone-aware: the tables reject naive values."""
    return datetime.now(UTC)


# No font shows these: control characters except white space, Unicode's
# Default_Ignorable_Code_Point, and interlinear annotations.
# Source: DerivedCoreProperties.txt of Unicode 15.
_INVISIBLE = re.compile(
    "[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_EMPTY_BRAILLE_PATTERN = "\u2800"


def normalize_text(text: str) -> str:
    """Return text in NFC, without invisible characters and with single spaces between words.

    Raises:
        ValueError: it contains a NUL, which PostgreSQL cannot store, or half of a surrogate pair,
            which UTF-8 cannot.
    """
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("must not contain half of a surrogate pair") from None
    if not (text.isascii() and text.isprintable()):
        text = normalize("NFC", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def normalize_title(title: str) -> str:
    """Return a title as it is stored: normalized text with at least one visible character.

    Raises:
        ValueError: it has none, or a character that cannot be stored.
    """
    title = normalize_text(title)
    if not any(map(_is_visible, title)):
        raise ValueError("must contain a visible character")
    return title


@lru_cache
def normalize_genre(genre: str) -> str:
    """Return a genre as it is stored: a normalized title in title case.

    ``sci-fi`` becomes ``Sci-Fi`` and ``CHILDREN'S`` becomes ``Children's``.

    Raises:
        ValueError: it has no visible character, or one that cannot be stored or is a '|', which
            separates genres in MovieLens files.
    """
    if GENRE_SEPARATOR in genre:
        raise ValueError("must be a single genre, without '|'")
    words = re.split(r"([\s/&-])", normalize_title(genre))
    cased = normalize("NFC", "".join(word.capitalize() for word in words))
    # Some characters change case in two steps, and what is stored must be stable.
    return cased if cased == genre else normalize_genre(cased)


def _is_visible(character: str) -> bool:
    return category(character) not in {"Zs", "Mn", "Me"} and character != _EMPTY_BRAILLE_PATTERN


def normalize_genres(genres: Iterable[str]) -> list[str]:
    """Return genres as they are stored: each normalized and none twice, in their order.

    Raises:
        ValueError: there is none, there are more than GENRES_MAX, or one cannot be normalized.
    """
    unique = [*dict.fromkeys(map(normalize_genre, genres))]
    if not 1 <= len(unique) <= GENRES_MAX:
        raise ValueError(f"must be 1 to {GENRES_MAX} genres")
    return unique


def genre_columns(genres: Iterable[str]) -> dict[str, str]:
    """Return the columns of a movie that hold its genres, given all of them, normalized."""
    first, *others = genres
    return {"genre": first, "other_genres": "".join(GENRE_SEPARATOR + other for other in others)}


def normalize_imdb_id(imdb_id: str) -> str:
    """Return an IMDb id as IMDb writes it: ``tt114709`` becomes ``tt0114709``.

    Raises:
        ValueError: it is not "tt" and a number from 1 to 9999999999.
    """
    match = re.fullmatch("tt0*([1-9][0-9]{0,9})", imdb_id.strip(), re.ASCII)
    if match is None:
        raise ValueError("must be an IMDb id, such as tt0114709")
    return f"tt{match[1]:0>7}"


def _search_key_of_new_row(context: DefaultExecutionContext) -> str:
    title: str = context.get_current_parameters()["title"]  # type: ignore[no-untyped-call] # SQLAlchemy's
    return search_key(title)


class Movie(SQLModel, table=True):
    """A title of the catalogue, with its rating aggregates.

    The aggregates make a ranking cost the same at any number of ratings. MovieRepository updates
    them in the transaction that changes a rating; rows added to ``ratings`` by hand do not.
    """

    __table_args__ = (
        UniqueConstraint("title"),
        UniqueConstraint("imdb_id"),
        UniqueConstraint("tmdb_id"),
        CheckConstraint(f"length(title) BETWEEN 1 AND {TITLE_MAX_LENGTH}", name="title_length"),
        CheckConstraint(f"length(genre) BETWEEN 1 AND {GENRE_MAX_LENGTH}", name="genre_length"),
        CheckConstraint(
            f"length(imdb_id) BETWEEN {IMDB_ID_MIN_LENGTH} AND {IMDB_ID_MAX_LENGTH}",
            name="imdb_id_length",
        ),
        CheckConstraint("tmdb_id >= 1", name="tmdb_id_range"),
        CheckConstraint(f"year BETWEEN {YEAR_MIN} AND {YEAR_MAX}", name="year_range"),
        CheckConstraint("rating_count >= 0", name="rating_count_range"),
        CheckConstraint(
            f"rating_sum BETWEEN {SCORE_MIN} * rating_count AND {SCORE_MAX} * rating_count",
            name="rating_sum_range",
        ),
        CheckConstraint(
            "(rating_count = 0) = (average_rating IS NULL)", name="average_rating_null_when_unrated"
        ),
        CheckConstraint(
            f"average_rating BETWEEN {SCORE_MIN} AND {SCORE_MAX}", name="average_rating_range"
        ),
        Index(None, "year", "id"),
        Index(None, "rating_count", "id"),
        # Ids are never reused: a bookmark must not come to mean another movie.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(sa_column=text_column(TITLE_MAX_LENGTH))
    search_title: str = Field(
        default=None,
        sa_column=text_column(SEARCH_KEY_MAX_LENGTH, default=_search_key_of_new_row),
    )
    year: int
    genre: str = Field(
        default=DEFAULT_GENRE,
        sa_column=text_column(GENRE_MAX_LENGTH, server_default=DEFAULT_GENRE),
    )
    # The genres after the first, each with the separator before it: "|Crime|Drama".
    other_genres: str = Field(
        default="",
        sa_column=text_column((GENRES_MAX - 1) * (1 + GENRE_MAX_LENGTH), server_default=text("''")),
    )
    imdb_id: str | None = Field(default=None, max_length=IMDB_ID_MAX_LENGTH)
    tmdb_id: int | None = None
    rating_count: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    rating_sum: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    average_rating: float | None = None
    weighted_rating: float | None = None

    ratings: list["Rating"] = Relationship(back_populates="movie", cascade_delete=True)

    @property
    def genres(self) -> list[str]:
        """All genres; the first is ``genre``."""
        return (self.genre + self.other_genres).split(GENRE_SEPARATOR)

    @genres.setter
    def genres(self, genres: Iterable[str]) -> None:
        for name, value in genre_columns(normalize_genres(genres)).items():
            setattr(self, name, value)


class MovieGenre(SQLModel, table=True):
    """One of a movie's genres: what filters look up. The movie itself has them in their order."""

    __tablename__ = "movie_genre"
    __table_args__ = (
        Index(None, "genre", "movie_id"),
        # SQLite would otherwise store each row twice, by a hidden id and by the key.
        {"sqlite_with_rowid": False},
    )

    movie_id: int = Field(
        sa_column=Column(Integer, ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True),
    )
    genre: str = Field(sa_column=text_column(GENRE_MAX_LENGTH, primary_key=True))


@event.listens_for(Movie, "after_insert")
@event.listens_for(Movie, "after_update")
def _keep_movie_genres(_: object, connection: Connection, movie: Movie) -> None:
    """Update the rows of a movie's genres when a session stores the movie."""
    state = inspect(movie)
    if not any(state.attrs[name].history.has_changes() for name in ("id", "genre", "other_genres")):
        return
    own = col(MovieGenre.movie_id) == movie.id
    connection.execute(delete(MovieGenre).where(own))
    rows = [{"movie_id": movie.id, "genre": genre} for genre in movie.genres]
    connection.execute(insert(MovieGenre), rows)


@event.listens_for(Movie, "before_delete")
def _delete_movie_genres(_: object, connection: Connection, movie: Movie) -> None:
    """Delete the rows of a movie's genres by hand: SQLite cascades only with foreign keys on."""
    connection.execute(delete(MovieGenre).where(col(MovieGenre.movie_id) == movie.id))


@event.listens_for(Movie, "init")
def _read_genres(movie: Movie, _: object, values: dict[str, Any]) -> None:
    """Take ``genres`` as an argument of the constructor, which knows columns alone."""
    if "genres" in values:
        movie.genres = values.pop("genres")
        values |= {"genre": movie.genre, "other_genres": movie.other_genres}


@event.listens_for(Movie.title, "set")
def _keep_search_title(movie: Movie, title: str, *_: object) -> None:
    """Update the search key when a title changes in a session."""
    movie.search_title = search_key(title)


# Each ranking's order. None within a genre: every rating would have to update those as well.
for _name in ("average_rating", "weighted_rating"):
    Index(
        f"ix_movie_{_name}_ranking",
        col(getattr(Movie, _name)).desc(),
        col(Movie.rating_count).desc(),
        col(Movie.title),
    )


class Rating(SQLModel, table=True):
    """A user's score for a movie. Anonymous ratings have no user, and each of them counts."""

    __table_args__ = (
        UniqueConstraint("movie_id", "user_id"),
        # A list instead of a range: SQLite would store 4.5 in an INTEGER column.
        CheckConstraint("score IN (1, 2, 3, 4, 5)", name="score_range"),
        Index(None, "movie_id", "id"),
        Index(None, "user_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    # Optional to construct one, as Rating(movie=...) has it from there.
    movie_id: int = Field(
        default=None,
        sa_column=Column(Integer, ForeignKey("movie.id", ondelete="CASCADE"), nullable=False),
    )
    # Any integer of SQLite's has 64 bits.
    user_id: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"))
    )
    score: int
    created_at: datetime = Field(default_factory=utc_now)

    movie: Movie = Relationship(back_populates="ratings")


class Neighbour(SQLModel, table=True):
    """A movie that those like who like another one. Training replaces all of them."""

    __table_args__ = (
        CheckConstraint("weight > 0", name="weight_range"),
        # For the cascade, which would read the whole table.
        Index(None, "neighbour_id"),
        # Stored in the primary key itself: half the size.
        {"sqlite_with_rowid": False},
    )

    movie_id: int = Field(
        sa_column=Column(Integer, ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True)
    )
    neighbour_id: int = Field(
        sa_column=Column(Integer, ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True)
    )
    weight: float

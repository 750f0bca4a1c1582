"""The tables. Each change of one needs a migration.

A SQLModel table does not validate when it is constructed: request payloads are separate classes
(schemas.py), and every bound is also a named CHECK here.
"""

# No `from __future__ import annotations` here: it breaks SQLModel relationships.
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlmodel import Column, Field, Integer, Relationship, SQLModel, col

from app import text
from app.search import (
    NAMES_MAX_LENGTH,
    SEARCH_KEY_MAX_LENGTH,
    SORT_TITLE_MAX_LENGTH,
    WORD_MAX_LENGTH,
    index_words,
    names_key,
    search_key,
    sort_title,
    title_columns,
)

# Constraints need names to be altered or dropped later. Set before any table is declared.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# The largest INTEGER of PostgreSQL; larger values crash both drivers.
INTEGER_MAX = 2**31 - 1
# The largest integer that JavaScript represents exactly; user ids of chat services are that large.
USER_ID_MAX = 2**53 - 1
YEAR_MIN, YEAR_MAX = 1900, 2100
SCORE_MIN, SCORE_MAX = 1, 5


def text_column(length: int, **options: Any) -> Column[str]:  # noqa: ANN401 - Column's options
    """Return a column of text that sorts by code point on every engine.

    SQLite sorts by bytes of UTF-8. PostgreSQL would sort by the database's locale;
    collation "C" makes it sort like SQLite.
    """
    kind = sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
    return Column(kind, nullable=False, **options)


def utc_now() -> datetime:
    """Return the current time. It is timezone-aware: the tables reject naive values."""
    return datetime.now(UTC)


def title_column(length: int, derive: Callable[[str], str], **options: Any) -> Column[str]:  # noqa: ANN401 - Column's options
    """Return a column of text that is derived from the title of a new row."""

    def derive_from_row(context: DefaultExecutionContext) -> str:
        return derive(context.get_current_parameters()["title"])  # type: ignore[no-untyped-call] # SQLAlchemy's

    return text_column(length, default=derive_from_row, **options)


class Movie(SQLModel, table=True):
    """A movie with its rating aggregates.

    With the aggregates, the cost of a ranking does not depend on the number of ratings.
    MovieRepository updates them in the transaction that changes a rating; adding rows to
    ``ratings`` does not.
    """

    __table_args__ = (
        sa.UniqueConstraint("title"),
        sa.UniqueConstraint("imdb_id"),
        sa.UniqueConstraint("tmdb_id"),
        sa.CheckConstraint(
            f"length(title) BETWEEN 1 AND {text.TITLE_MAX_LENGTH}", name="title_length"
        ),
        sa.CheckConstraint(
            f"length(genre) BETWEEN 1 AND {text.GENRE_MAX_LENGTH}", name="genre_length"
        ),
        sa.CheckConstraint(
            f"length(imdb_id) BETWEEN {text.IMDB_ID_MIN_LENGTH} AND {text.IMDB_ID_MAX_LENGTH}",
            name="imdb_id_length",
        ),
        sa.CheckConstraint("tmdb_id >= 1", name="tmdb_id_range"),
        sa.CheckConstraint(f"year BETWEEN {YEAR_MIN} AND {YEAR_MAX}", name="year_range"),
        sa.CheckConstraint("rating_count >= 0", name="rating_count_range"),
        sa.CheckConstraint(
            f"rating_sum BETWEEN {SCORE_MIN} * rating_count AND {SCORE_MAX} * rating_count",
            name="rating_sum_range",
        ),
        sa.CheckConstraint(
            "(rating_count = 0) = (average_rating IS NULL)", name="average_rating_null_when_unrated"
        ),
        sa.CheckConstraint(
            f"average_rating BETWEEN {SCORE_MIN} AND {SCORE_MAX}", name="average_rating_range"
        ),
        sa.Index(None, "sort_title", "title"),
        sa.Index(None, "year", "id"),
        sa.Index(None, "rating_count", "id"),
        # Ids are never reused: an old bookmark must not lead to another movie.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(sa_column=text_column(text.TITLE_MAX_LENGTH))
    search_title: str = Field(
        default=None, sa_column=title_column(SEARCH_KEY_MAX_LENGTH, search_key)
    )
    # Empty until app/search/index.py has indexed the movie: the version before does not.
    search_names: str = Field(
        default=None,
        sa_column=title_column(NAMES_MAX_LENGTH, names_key, server_default=sa.text("''")),
    )
    sort_title: str = Field(
        default=None,
        sa_column=title_column(SORT_TITLE_MAX_LENGTH, sort_title, server_default=sa.text("''")),
    )
    year: int
    genre: str = Field(
        default=text.DEFAULT_GENRE,
        sa_column=text_column(text.GENRE_MAX_LENGTH, server_default=text.DEFAULT_GENRE),
    )
    # The genres after the first, each preceded by the separator: "|Crime|Drama".
    other_genres: str = Field(
        default="",
        sa_column=text_column(
            (text.GENRES_MAX - 1) * (1 + text.GENRE_MAX_LENGTH), server_default=sa.text("''")
        ),
    )
    imdb_id: str | None = Field(default=None, max_length=text.IMDB_ID_MAX_LENGTH)
    tmdb_id: int | None = None
    rating_count: int = Field(default=0, sa_column_kwargs={"server_default": sa.text("0")})
    rating_sum: int = Field(default=0, sa_column_kwargs={"server_default": sa.text("0")})
    average_rating: float | None = None
    weighted_rating: float | None = None

    ratings: list["Rating"] = Relationship(back_populates="movie", cascade_delete=True)

    @property
    def genres(self) -> list[str]:
        """All genres; the first is ``genre``."""
        return (self.genre + self.other_genres).split(text.GENRE_SEPARATOR)

    @genres.setter
    def genres(self, genres: Iterable[str]) -> None:
        for name, value in text.genre_columns(text.normalize_genres(genres)).items():
            setattr(self, name, value)


class MovieGenre(SQLModel, table=True):
    """A genre of a movie, for filters. Movie stores the genres in order."""

    __tablename__ = "movie_genre"
    __table_args__ = (
        sa.Index(None, "genre", "movie_id"),
        # Otherwise SQLite stores each row twice: by a hidden row id and by the primary key.
        {"sqlite_with_rowid": False},
    )

    movie_id: int = Field(
        sa_column=Column(Integer, sa.ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True)
    )
    genre: str = Field(sa_column=text_column(text.GENRE_MAX_LENGTH, primary_key=True))


class MovieWord(SQLModel, table=True):
    """A word by which searches look up a movie. ``search_names`` decides whether it matches."""

    __tablename__ = "movie_word"
    __table_args__ = (sa.Index(None, "movie_id"), {"sqlite_with_rowid": False})

    word: str = Field(sa_column=text_column(WORD_MAX_LENGTH, primary_key=True))
    movie_id: int = Field(
        sa_column=Column(Integer, sa.ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True)
    )


@sa.event.listens_for(Movie, "after_insert")
@sa.event.listens_for(Movie, "after_update")
def _keep_lookup_rows(_: object, connection: sa.Connection, movie: Movie) -> None:
    """Update the rows by which a movie is looked up when a session stores the movie."""
    state = sa.inspect(movie)

    def changed(*names: str) -> bool:
        return any(state.attrs[name].history.has_changes() for name in ("id", *names))

    def replace(model: type[MovieGenre | MovieWord], rows: Iterable[dict[str, Any]]) -> None:
        connection.execute(sa.delete(model).where(col(model.movie_id) == movie.id))
        if new := [{"movie_id": movie.id, **row} for row in rows]:
            connection.execute(sa.insert(model), new)

    if changed("genre", "other_genres"):
        replace(MovieGenre, ({"genre": genre} for genre in movie.genres))
    if changed("title"):
        replace(MovieWord, ({"word": word} for word in index_words(movie.search_names)))


@sa.event.listens_for(Movie, "before_delete")
def _delete_lookup_rows(_: object, connection: sa.Connection, movie: Movie) -> None:
    """Delete a movie's rows explicitly: SQLite cascades only if foreign keys are on."""
    for model in (MovieGenre, MovieWord):
        connection.execute(sa.delete(model).where(col(model.movie_id) == movie.id))


@sa.event.listens_for(Movie, "init")
def _read_genres(movie: Movie, _: object, values: dict[str, Any]) -> None:
    """Accept ``genres`` in the constructor, which otherwise takes columns only."""
    if "genres" in values:
        movie.genres = values.pop("genres")
        values |= {"genre": movie.genre, "other_genres": movie.other_genres}


@sa.event.listens_for(Movie.title, "set")
def _keep_title_columns(movie: Movie, title: str, *_: object) -> None:
    """Update the columns derived from a title when it changes in a session."""
    for name, value in title_columns(title).items():
        setattr(movie, name, value)


# One index per ranking. Rankings within a genre have none, because each rating would update it.
for _name in ("average_rating", "weighted_rating"):
    sa.Index(
        f"ix_movie_{_name}_ranking",
        col(getattr(Movie, _name)).desc(),
        col(Movie.rating_count).desc(),
        col(Movie.title),
    )


class Rating(SQLModel, table=True):
    """A user's score for a movie. Anonymous ratings have no user, and each of them counts."""

    __table_args__ = (
        sa.UniqueConstraint("movie_id", "user_id"),
        # A list instead of a range: SQLite would store 4.5 in an INTEGER column.
        sa.CheckConstraint("score IN (1, 2, 3, 4, 5)", name="score_range"),
        sa.Index(None, "movie_id", "id"),
        sa.Index(None, "user_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    # None is allowed in Python because Rating(movie=...) sets it.
    movie_id: int = Field(
        default=None,
        sa_column=Column(Integer, sa.ForeignKey("movie.id", ondelete="CASCADE"), nullable=False),
    )
    # SQLite's INTEGER holds 64 bits.
    user_id: int | None = Field(
        default=None, sa_column=Column(sa.BigInteger().with_variant(Integer(), "sqlite"))
    )
    score: int
    created_at: datetime = Field(default_factory=utc_now)

    movie: Movie = Relationship(back_populates="ratings")


class Neighbour(SQLModel, table=True):
    """A movie liked by the same users as another. Each training replaces all rows."""

    __table_args__ = (
        sa.CheckConstraint("weight > 0", name="weight_range"),
        # The deletion of a movie would scan the table otherwise.
        sa.Index(None, "neighbour_id"),
        # Store rows in the primary key's index, which halves the size.
        {"sqlite_with_rowid": False},
    )

    movie_id: int = Field(
        sa_column=Column(Integer, sa.ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True)
    )
    neighbour_id: int = Field(
        sa_column=Column(Integer, sa.ForeignKey("movie.id", ondelete="CASCADE"), primary_key=True)
    )
    weight: float

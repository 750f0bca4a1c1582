"""The tables. Alembic owns the schema: a change here needs a migration.

A SQLModel table does not validate when it is constructed, so payloads have classes of their own
(schemas.py) and every bound stands here again as a named CHECK.
"""

# No `from __future__ import annotations` here: it breaks SQLModel relationships.
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, event, text
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlmodel import Column, Field, Integer, SQLModel, col

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
    """Return the present moment, aware of its zone as the tables need it."""
    return datetime.now(UTC)


def search_key(title: str) -> str:
    """Return what a search compares: the title without differences of case, in any script."""
    return title.casefold()


def _search_key_of_new_row(context: DefaultExecutionContext) -> str:
    title: str = context.get_current_parameters()["title"]  # type: ignore[no-untyped-call] # SQLAlchemy's
    return search_key(title)


class Movie(SQLModel, table=True):
    """A title of the catalogue, with the tallies of its ratings.

    The tallies are what makes a ranking cost the same at any number of ratings. They change in
    the transaction that changes a rating, in SQL.
    """

    __table_args__ = (
        UniqueConstraint("title"),
        CheckConstraint(f"length(title) BETWEEN 1 AND {TITLE_MAX_LENGTH}", name="title_length"),
        CheckConstraint(f"length(genre) BETWEEN 1 AND {GENRE_MAX_LENGTH}", name="genre_length"),
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
        Index(None, "genre", "title"),
        # An id is never used again, so that a bookmark cannot come to mean another movie.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(sa_column=text_column(TITLE_MAX_LENGTH))
    # casefold() makes up to three characters of one.
    search_title: str = Field(
        default=None,
        sa_column=text_column(3 * TITLE_MAX_LENGTH, default=_search_key_of_new_row),
    )
    year: int
    genre: str = Field(
        default=DEFAULT_GENRE,
        sa_column=text_column(GENRE_MAX_LENGTH, server_default=DEFAULT_GENRE),
    )
    rating_count: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    rating_sum: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    average_rating: float | None = None
    weighted_rating: float | None = None


@event.listens_for(Movie.title, "set")
def _keep_search_title(movie: Movie, title: str, *_: object) -> None:
    """Let the key follow a title that is changed in a session."""
    movie.search_title = search_key(title)


# The order of each ranking, for the whole catalogue and within a genre.
for _name in ("average_rating", "weighted_rating"):
    _ranking = (
        col(getattr(Movie, _name)).desc(),
        col(Movie.rating_count).desc(),
        col(Movie.title),
    )
    Index(f"ix_movie_{_name}_ranking", *_ranking)
    Index(f"ix_movie_genre_{_name}_ranking", col(Movie.genre), *_ranking)


class Rating(SQLModel, table=True):
    """A user's score for a movie. Without a user it is anonymous, and each such one counts."""

    __table_args__ = (
        UniqueConstraint("movie_id", "user_id"),
        # A list of whole numbers and not a range: SQLite would store 4.5 in an INTEGER column.
        CheckConstraint("score IN (1, 2, 3, 4, 5)", name="score_range"),
        Index(None, "movie_id", "id"),
        Index(None, "user_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    movie_id: int = Field(
        sa_column=Column(Integer, ForeignKey("movie.id", ondelete="CASCADE"), nullable=False)
    )
    user_id: int | None = None
    score: int
    created_at: datetime = Field(default_factory=utc_now)

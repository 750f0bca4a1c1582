"""All genres of a movie, IMDb and TMDB ids, tolerant search keys, and 53-bit user ids.

Drops the indexes for rankings within a genre, because each rating had to update them.

Revision: e5f1a7c30b92
Revises: d2b7e4c91f06
Created: 2026-11-28
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

# The current function, not a copy: a revision that changes search keys recomputes all of them.
from app.search import search_key

revision = "e5f1a7c30b92"
down_revision = "d2b7e4c91f06"
branch_labels = None
depends_on = None


def text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


MOVIE = sa.table("movie", *map(sa.column, ("id", "title", "search_title")))
SCORES = ("average_rating", "weighted_rating")
INT32_MAX = 2**31 - 1


def upgrade() -> None:
    op.create_table(
        "movie_genre",
        sa.Column("movie_id", sa.Integer(), nullable=False),
        sa.Column("genre", text(100), nullable=False),
        sa.ForeignKeyConstraint(
            ["movie_id"], ["movie.id"], name="fk_movie_genre_movie_id_movie", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("movie_id", "genre", name="pk_movie_genre"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO movie_genre (movie_id, genre) SELECT id, genre FROM movie")
    op.create_index("ix_movie_genre_genre_movie_id", "movie_genre", ["genre", "movie_id"])
    op.drop_index("ix_movie_genre_title", "movie")
    for score in SCORES:
        op.drop_index(f"ix_movie_genre_{score}_ranking", "movie")
        # Recreated below: a batch loses the directions of an index's columns.
        op.drop_index(f"ix_movie_{score}_ranking", "movie")
    with op.batch_alter_table("movie", table_kwargs={"sqlite_autoincrement": True}) as movie:
        movie.add_column(
            sa.Column("other_genres", text(1919), server_default=sa.text("''"), nullable=False)
        )
        movie.add_column(sa.Column("imdb_id", sa.String(12), nullable=True))
        movie.add_column(sa.Column("tmdb_id", sa.Integer(), nullable=True))
        for name in ("imdb_id", "tmdb_id"):
            movie.create_unique_constraint(f"uq_movie_{name}", [name])
        movie.create_check_constraint(
            op.f("ck_movie_imdb_id_length"), "length(imdb_id) BETWEEN 9 AND 12"
        )
        movie.create_check_constraint(op.f("ck_movie_tmdb_id_range"), "tmdb_id >= 1")
    for score in SCORES:
        op.create_index(f"ix_movie_{score}_ranking", "movie", ranking(score))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("rating", "user_id", type_=sa.BigInteger(), existing_nullable=True)
    fill_search_titles(search_key)


def downgrade() -> None:
    """Drop the genres after the first and the external ids.

    Raises:
        CommandError: a user id is larger than the older version can hold.
    """
    users = sa.table("rating", sa.column("user_id"))
    largest = op.get_bind().execute(sa.select(sa.func.max(users.c.user_id))).scalar_one()
    if largest is not None and largest > INT32_MAX:
        raise CommandError(
            f"The older version holds user ids up to {INT32_MAX}, and there is {largest}. "
            "Delete the ratings by such users first."
        )
    fill_search_titles(str.casefold)
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("rating", "user_id", type_=sa.Integer(), existing_nullable=True)
    for score in SCORES:
        op.drop_index(f"ix_movie_{score}_ranking", "movie")
    with op.batch_alter_table("movie", table_kwargs={"sqlite_autoincrement": True}) as movie:
        movie.drop_constraint(op.f("ck_movie_tmdb_id_range"), type_="check")
        movie.drop_constraint(op.f("ck_movie_imdb_id_length"), type_="check")
        for name in ("tmdb_id", "imdb_id"):
            movie.drop_constraint(f"uq_movie_{name}", type_="unique")
            movie.drop_column(name)
        movie.drop_column("other_genres")
    for score in SCORES:
        op.create_index(f"ix_movie_{score}_ranking", "movie", ranking(score))
        index = f"ix_movie_genre_{score}_ranking"
        op.create_index(index, "movie", [sa.text("genre"), *ranking(score)])
    op.create_index("ix_movie_genre_title", "movie", ["genre", "title"])
    op.drop_table("movie_genre")


def ranking(score: str) -> list[sa.TextClause]:
    return [sa.text(column) for column in (f"{score} DESC", "rating_count DESC", "title")]


def fill_search_titles(key_of: Callable[[str], str]) -> None:
    """Update the search keys that change."""
    connection = op.get_bind()
    movies = connection.execute(sa.select(*MOVIE.c).order_by(MOVIE.c.id)).all()
    changed = [
        {"this_movie": movie_id, "search_title": key}
        for movie_id, title, search_title in movies
        if (key := key_of(title)) != search_title
    ]
    if changed:
        update = sa.update(MOVIE).where(MOVIE.c.id == sa.bindparam("this_movie"))
        connection.execute(update, changed)

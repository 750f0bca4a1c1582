"""Movies with rating aggregates, and ratings.

Revision: a1f0c2d4e6b8
Revises:
Created: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op

revision = "a1f0c2d4e6b8"
down_revision = None
branch_labels = None
depends_on = None


def text(length: int) -> sa.types.TypeEngine[str]:
    """Return text that sorts by code point on every engine."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "movie",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", text(300), nullable=False),
        sa.Column("search_title", text(900), nullable=False),
        sa.Column("year", sa.Integer(), nullable=False),
        sa.Column("genre", text(100), server_default="Unknown", nullable=False),
        sa.Column("rating_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("rating_sum", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("average_rating", sa.Float(), nullable=True),
        sa.CheckConstraint("length(title) BETWEEN 1 AND 300", name=op.f("ck_movie_title_length")),
        sa.CheckConstraint("length(genre) BETWEEN 1 AND 100", name=op.f("ck_movie_genre_length")),
        sa.CheckConstraint("year BETWEEN 1900 AND 2100", name=op.f("ck_movie_year_range")),
        sa.CheckConstraint("rating_count >= 0", name=op.f("ck_movie_rating_count_range")),
        sa.CheckConstraint(
            "rating_sum BETWEEN 1 * rating_count AND 5 * rating_count",
            name=op.f("ck_movie_rating_sum_range"),
        ),
        sa.CheckConstraint(
            "(rating_count = 0) = (average_rating IS NULL)",
            name=op.f("ck_movie_average_rating_null_when_unrated"),
        ),
        sa.CheckConstraint(
            "average_rating BETWEEN 1 AND 5", name=op.f("ck_movie_average_rating_range")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_movie")),
        sa.UniqueConstraint("title", name=op.f("uq_movie_title")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_movie_year_id"), "movie", ["year", "id"])
    op.create_index(op.f("ix_movie_rating_count_id"), "movie", ["rating_count", "id"])
    op.create_index(op.f("ix_movie_genre_title"), "movie", ["genre", "title"])
    ranking = [sa.text(column) for column in ("average_rating DESC", "rating_count DESC", "title")]
    op.create_index("ix_movie_average_rating_ranking", "movie", ranking)
    op.create_index("ix_movie_genre_average_rating_ranking", "movie", [sa.text("genre"), *ranking])

    op.create_table(
        "rating",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("movie_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("score IN (1, 2, 3, 4, 5)", name=op.f("ck_rating_score_range")),
        sa.ForeignKeyConstraint(
            ["movie_id"],
            ["movie.id"],
            name=op.f("fk_rating_movie_id_movie"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rating")),
        sa.UniqueConstraint("movie_id", "user_id", name=op.f("uq_rating_movie_id_user_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_rating_movie_id_id"), "rating", ["movie_id", "id"])
    op.create_index(op.f("ix_rating_user_id_id"), "rating", ["user_id", "id"])


def downgrade() -> None:
    op.drop_table("rating")
    op.drop_table("movie")

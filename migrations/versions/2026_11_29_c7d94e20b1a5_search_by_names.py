"""Names of movies for searches, and titles as they are sorted.

Fills nothing: the service and ``scripts/db.py migrate`` do so in batches, which block no writer for
long.

Revision: c7d94e20b1a5
Revises: f2b8d6a10c47
Created: 2026-11-29
"""

import sqlalchemy as sa
from alembic import op

revision = "c7d94e20b1a5"
down_revision = "f2b8d6a10c47"
branch_labels = None
depends_on = None


def text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "movie", sa.Column("search_names", text(1500), server_default=sa.text("''"), nullable=False)
    )
    op.add_column(
        "movie", sa.Column("sort_title", text(300), server_default=sa.text("''"), nullable=False)
    )
    op.create_index(op.f("ix_movie_sort_title_title"), "movie", ["sort_title", "title"])
    op.create_table(
        "movie_word",
        sa.Column("word", text(50), nullable=False),
        sa.Column("movie_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["movie_id"],
            ["movie.id"],
            name=op.f("fk_movie_word_movie_id_movie"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("word", "movie_id", name=op.f("pk_movie_word")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_movie_word_movie_id"), "movie_word", ["movie_id"])


def downgrade() -> None:
    op.drop_table("movie_word")
    op.drop_index(op.f("ix_movie_sort_title_title"), "movie")
    op.drop_column("movie", "sort_title")
    op.drop_column("movie", "search_names")

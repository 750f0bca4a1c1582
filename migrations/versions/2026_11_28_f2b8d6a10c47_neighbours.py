"""Neighbours of movies, from which recommendations are computed.

Revision: f2b8d6a10c47
Revises: e5f1a7c30b92
Created: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op

revision = "f2b8d6a10c47"
down_revision = "e5f1a7c30b92"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "neighbour",
        sa.Column("movie_id", sa.Integer(), nullable=False),
        sa.Column("neighbour_id", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.CheckConstraint("weight > 0", name=op.f("ck_neighbour_weight_range")),
        sa.ForeignKeyConstraint(
            ["movie_id"], ["movie.id"], name=op.f("fk_neighbour_movie_id_movie"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["neighbour_id"],
            ["movie.id"],
            name=op.f("fk_neighbour_neighbour_id_movie"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("movie_id", "neighbour_id", name=op.f("pk_neighbour")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_neighbour_neighbour_id"), "neighbour", ["neighbour_id"])


def downgrade() -> None:
    op.drop_table("neighbour")

"""The weighted ranking: a Bayesian average in addition to the mean.

Revision: b7d3e9a5c1f2
Revises: a1f0c2d4e6b8
Created: 2026-11-21
"""

import sqlalchemy as sa
from alembic import op

revision = "b7d3e9a5c1f2"
down_revision = "a1f0c2d4e6b8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("movie", sa.Column("weighted_rating", sa.Float(), nullable=True))
    # The prior: ten ratings of 3.
    op.execute(
        "UPDATE movie SET weighted_rating = (rating_sum + 30.0) / (rating_count + 10) "
        "WHERE rating_count > 0"
    )
    ranking = [sa.text(column) for column in ("weighted_rating DESC", "rating_count DESC", "title")]
    op.create_index("ix_movie_weighted_rating_ranking", "movie", ranking)
    op.create_index("ix_movie_genre_weighted_rating_ranking", "movie", [sa.text("genre"), *ranking])


def downgrade() -> None:
    op.drop_index("ix_movie_genre_weighted_rating_ranking", "movie")
    op.drop_index("ix_movie_weighted_rating_ranking", "movie")
    op.drop_column("movie", "weighted_rating")

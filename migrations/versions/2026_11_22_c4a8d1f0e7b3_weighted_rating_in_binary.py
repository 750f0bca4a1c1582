"""Recompute the weighted rating in binary, as the service does: PostgreSQL had divided in decimal.

Some averages differed in the last binary digit, which the check of aggregates reports.

Revision: c4a8d1f0e7b3
Revises: b7d3e9a5c1f2
Created: 2026-11-22
"""

from alembic import op

revision = "c4a8d1f0e7b3"
down_revision = "b7d3e9a5c1f2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE movie SET weighted_rating = (CAST(rating_sum AS FLOAT) + 30) / (rating_count + 10) "
        "WHERE rating_count > 0"
    )


def downgrade() -> None:
    """Change nothing: the older version reads both."""

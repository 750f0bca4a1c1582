"""The schema's history, and what Alembic's commands do beyond their own."""

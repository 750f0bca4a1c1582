"""The schema's revisions, and extensions of Alembic's commands."""

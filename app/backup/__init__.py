"""Copies of a SQLite database in use."""

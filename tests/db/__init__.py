"""Tests of app/db: the database, its transactions, its migrations and its faults."""

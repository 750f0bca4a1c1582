"""Tests of scripts/db.py."""

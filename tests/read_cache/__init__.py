"""Tests of app/read_cache."""

"""Tests of app/movielens."""

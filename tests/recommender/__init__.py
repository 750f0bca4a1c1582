"""Tests of app/recommender."""

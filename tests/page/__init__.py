"""Tests of app/page."""

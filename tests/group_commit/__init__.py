"""Tests of app/group_commit."""

"""Tests of app/replicas."""

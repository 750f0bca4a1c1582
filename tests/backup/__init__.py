"""Tests of app/backup."""

"""Tests of app/http: what holds for every request and response."""

"""Tests of app/http: behaviour shared by all requests and responses."""

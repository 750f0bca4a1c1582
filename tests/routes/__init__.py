"""Tests of app/routes: parameters, status codes, headers and JSON of each resource."""

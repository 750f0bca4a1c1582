"""A movie catalogue with user ratings, served as a REST API."""

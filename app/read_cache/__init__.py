"""Answers repeated reads from memory while nobody commits. SQLite only."""

from fastapi import FastAPI

from app.read_cache.middleware import ReadCacheMiddleware
from app.routes import genres, movies, ratings


def install(app: FastAPI) -> None:
    """Put the cache in front of lists, movies and recommendations, if the settings ask for it."""
    url = app.state.engine.url
    if app.state.settings.read_cache and url.get_backend_name() == "sqlite":
        app.add_middleware(
            ReadCacheMiddleware,
            prefixes=(
                movies.router.prefix,
                genres.router.prefix,
                ratings.router.prefix,
                # By its name: no capability imports another.
                "/recommendations",
            ),
        )

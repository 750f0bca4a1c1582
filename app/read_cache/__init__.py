"""Serves repeated reads from memory until the next commit. SQLite only."""

from starlette.middleware import Middleware

from app.read_cache.middleware import ReadCacheMiddleware
from app.routes import genres, movies, ratings
from app.service import Service


def install(service: Service) -> None:
    """Cache lists, movies and recommendations, if the settings enable it."""
    if service.settings.read_cache and service.database.engine.dialect.name == "sqlite":
        prefixes = (
            movies.router.prefix,
            genres.router.prefix,
            ratings.router.prefix,
            # A literal, because capabilities do not import each other.
            "/recommendations",
        )
        service.middleware.append(
            Middleware(ReadCacheMiddleware, service=service, prefixes=prefixes)
        )

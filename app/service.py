"""Service: what the parts of a running application share, in one typed object."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware

from app.config import Settings
from app.db import Database
from app.limits import Limits
from app.read_models import NewRating
from app.repository import MovieRepository

# The key of a request's scope that lists its sessions of the service's database.
SESSIONS = "movie_service.sessions"
# Stores a rating with the repository of its request.
RatingWriter = Callable[[MovieRepository, NewRating], Awaitable[None]]


@dataclass
class Service:
    """An application's parts. A capability's ``install(service)`` adds to them.

    Attributes:
        app: the FastAPI application.
        settings: the settings it was made with.
        limits: the limits it was made with.
        database: its database.
        rate: stores the rating of a ``POST /ratings``.
        readiness_checks: called in a worker thread by ``GET /ready``; each returns a line for
            everything that is missing.
        lifespans: context managers to enter while the service runs, with its database open.
        middleware: the capabilities' middleware, the outermost first.
        body_limits: bytes that a body may have, by path, if not those of the settings.
        paths_with_key: paths whose reads need the API key too, if one is set.
        not_found_page: returns the page that a browser gets for an unknown path.
    """

    app: FastAPI
    settings: Settings
    limits: Limits
    database: Database
    rate: RatingWriter
    readiness_checks: list[Callable[[], list[str]]] = field(default_factory=list)
    lifespans: list[Callable[[], AbstractAsyncContextManager[None]]] = field(default_factory=list)
    middleware: list[Middleware] = field(default_factory=list)
    body_limits: dict[str, int] = field(default_factory=dict)
    paths_with_key: set[str] = field(default_factory=set)
    not_found_page: Callable[[Request], Response] | None = None

    async def readiness(self) -> dict[str, list[str]]:
        """Return what the readiness checks report, as fields of ``GET /ready``."""
        results = [await self.database.read_in_thread(check) for check in self.readiness_checks]
        return {"missing": [line for lines in results for line in lines]} if results else {}

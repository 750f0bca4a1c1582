"""The application: settings, database, routes, capabilities and HTTP layer put together."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app import group_commit, metrics, movielens, page, read_cache, recommender, replicas
from app.config import Settings, load_settings, stop, unknown_names
from app.db import Database
from app.errors import SetupError
from app.http import APPLICATION_OPTIONS, add_http_layer, server_address
from app.limits import Limits
from app.logs import log_event
from app.read_models import NewRating
from app.repository import MovieRepository
from app.routes import genres, health, movies, ratings
from app.service import Service
from app.startup import start

# To remove a capability, delete its folder, its name here and its name in the import above.
CAPABILITIES = (read_cache, group_commit, movielens, recommender, replicas, page, metrics)


def create_app(settings: Settings | None = None, limits: Limits = Limits()) -> FastAPI:  # noqa: B008 - immutable
    """Return the service with these settings, by default those of the environment.

    It opens the database when it starts, not here.
    """
    try:
        return _application(settings or load_settings(), limits, is_configured=settings is None)
    except SetupError as error:
        stop(str(error))


def _application(settings: Settings, limits: Limits, *, is_configured: bool) -> FastAPI:
    database = Database(settings, limits, is_configured=is_configured)

    async def rate(repository: MovieRepository, rating: NewRating) -> None:
        await database.write(partial(repository.add_rating, *rating[:3]))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with database.open(), AsyncExitStack() as running:
            may_add_movies = settings.auto_setup and not database.is_replaced
            await database.write(
                partial(start, database, server_address(), may_add_movies=may_add_movies)
            )
            for capability in service.lifespans:
                await running.enter_async_context(capability())
            yield

    app = FastAPIOffline(version=version("movie-service"), lifespan=lifespan, **APPLICATION_OPTIONS)
    # Documentation routes are rarely requested: match them last.
    documentation, app.router.routes[:] = [*app.router.routes], []
    service = app.state.service = Service(app, settings, limits, database, rate)
    service.body_limits[ratings.BATCH_PATH] = 4 * settings.max_body_bytes
    for router in (movies.router, genres.router, ratings.router, health.router):
        app.include_router(router)
    for capability in CAPABILITIES:
        capability.install(service)
    app.router.routes += documentation
    add_http_layer(app, service)
    # Misspelt names have stopped the service: these are perhaps another program's.
    if is_configured and (names := unknown_names()):
        log_event("settings.ignored", logging.WARNING, names=",".join(names))
    return app


app = create_app()

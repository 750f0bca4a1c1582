"""The application: settings, engine, middleware and routes put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version

import anyio
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.config import Settings, load_settings, stop
from app.database_file import guarded
from app.db import CONNECT_TIMEOUT, concurrent_writers, create_db_engine, worker_threads
from app.dependencies import DependencyOverrides
from app.docs_page import restrict_docs
from app.error_handlers import EXCEPTION_HANDLERS
from app.errors import SetupError
from app.http_limits import limit_connections
from app.kept_connections import kept_connections
from app.logs import configure_logging
from app.middleware.access_log import AccessLogMiddleware
from app.middleware.allowed_hosts import AllowedHostsMiddleware
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.cors import CorsMiddleware
from app.middleware.head import HeadMiddleware
from app.middleware.trace_id import TraceIdMiddleware
from app.observer import Observer
from app.openapi import DESCRIPTION, SERVERS, TAGS, openapi_of
from app.routes import genres, health, movies, ratings
from app.routes.route_class import PerEventLoop
from app.startup import init_db, without_traceback

# Each is a folder. To remove one, delete the folder and its line here.
CAPABILITIES = (
    "app.read_cache",
    "app.group_commit",
    "app.movielens",
    "app.recommender",
    "app.replicas",
    "app.page",
    "app.metrics",
)  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the service with these settings. It opens the database when it starts, not here."""
    settings = settings or load_settings()
    configure_logging(settings)
    limit_connections()
    try:
        engine = create_db_engine(
            settings.database_url,
            busy_timeout=settings.busy_timeout,
            answer_timeout=settings.busy_timeout + CONNECT_TIMEOUT,
        )
    except SetupError as error:
        stop(str(error))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = worker_threads(engine)
        try:
            await anyio.to_thread.run_sync(init_db, settings, engine)
            with (
                guarded(engine) as app.state.database_file,
                kept_connections(
                    engine, settings.busy_timeout, app.state.database_file
                ) as app.state.kept,
            ):
                yield
        finally:
            app.state.database_file = app.state.kept = None
            engine.dispose()

    app = FastAPIOffline(
        title="Movie Service",
        summary="A movie catalogue with user ratings.",
        description=DESCRIPTION,
        contact={"name": "The Movie Service authors"},
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[*SERVERS],
        openapi_tags=[*TAGS],
        version=version("movie-service"),
        redoc_url=None,
        # Its address would repeat the request's Host. See error_handlers.py.
        redirect_slashes=False,
        # Traces and logs are the service's own; FastAPI's would be looked for in every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
    )
    restrict_docs(app)
    documentation = [*app.router.routes]
    app.dependency_overrides = DependencyOverrides()
    app.state.engine = engine
    app.state.settings = settings
    app.state.observer = Observer()
    app.state.database_file = app.state.kept = None
    app.state.writers = PerEventLoop(partial(asyncio.Semaphore, concurrent_writers(engine)))

    app.openapi = openapi_of(app)  # type: ignore[method-assign] # as FastAPI's documentation does
    app.router.lifespan = without_traceback(app.router.lifespan)  # type: ignore[assignment, method-assign] # a middleware would cost every request

    # The last one added is the first to see a request.
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        # A thousand ratings take more room than any movie.
        longer={ratings.BATCH_PATH: 4 * settings.max_body_bytes},
    )
    app.add_middleware(CorsMiddleware, settings=settings)
    for capability in CAPABILITIES:
        import_module(capability).install(app)
    app.add_middleware(AllowedHostsMiddleware, allowed=settings.allowed_hosts)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(AccessLogMiddleware, api_key=settings.api_key)
    app.add_middleware(TraceIdMiddleware)

    for router in (movies.router, genres.router, ratings.router, health.router):
        app.include_router(router)
    # Asked for least, so matched last.
    app.router.routes[:] = [r for r in app.router.routes if r not in documentation] + documentation
    return app


app = create_app()

"""The HTTP layer: behaviour shared by all requests.

The rest of the application imports these names, and no module of this package.
"""

import sys

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import SetupError
from app.http.address import server_address
from app.http.conditional import (
    CACHE_CONTROL,
    GZIP_LEVEL,
    IfMatchDep,
    compress,
    conditional,
    matches,
    prefers_gzip,
    tagged,
    unless_current,
)
from app.http.connection_limits import limit_connections
from app.http.cors import CorsMiddleware
from app.http.docs_page import restrict_docs
from app.http.errors import NO_CONTENT, error_responses, read_errors, write_errors
from app.http.handlers import EXCEPTION_HANDLERS
from app.http.log_output import configure_logging
from app.http.middleware import IS_HEAD, HttpLayer
from app.http.openapi import APPLICATION_OPTIONS, openapi_of, serve_document
from app.http.origins import normalize_allowed_host, normalize_origin
from app.http.query import checked_query, query_parameters
from app.service import Service


def add_http_layer(app: FastAPI, service: Service) -> None:
    """Complete an application that has its routes.

    Its middleware is, from the outermost: the HTTP layer, the capabilities' middleware and CORS.

    Raises:
        SetupError: a setting contains an origin or a host name that no browser sends.
    """
    hosts = [*map(normalize_allowed_host, service.settings.allowed_hosts)]
    origins = [*map(normalize_origin, service.settings.cors_origins)]
    configure_logging(service.settings)
    limit_connections(service.limits)
    app.user_middleware[:] = [
        Middleware(HttpLayer, service=service, hosts=hosts, origins=origins),
        *service.middleware,
        Middleware(CorsMiddleware, origins=origins),
    ]
    app.exception_handlers.update(EXCEPTION_HANDLERS)
    restrict_docs(app)
    app.openapi = openapi_of(app, has_key=service.settings.api_key is not None)  # type: ignore[method-assign] # as FastAPI's documentation does
    serve_document(app)
    # A middleware would cost every request.
    app.router.lifespan = _without_traceback(app.router.lifespan)  # type: ignore[assignment, method-assign] # the router calls it as an ASGI application


def _without_traceback(lifespan: ASGIApp) -> ASGIApp:
    """Return a lifespan that reports a SetupError by its message, without a traceback."""

    async def report(scope: Scope, receive: Receive, send: Send) -> None:
        async def shorten(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, SetupError):
                message["message"] = str(error)
            await send(message)

        await lifespan(scope, receive, shorten)

    return report

"""CORS: which other origins may call the service from a browser, and which headers they see."""

import logging
import re

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app.http.conditional import PAGE_HEADERS
from app.http.errors import ErrorResponse, json_response
from app.http.unknown_paths import METHODS
from app.logs import TRACE_HEADER, log_event


class CorsMiddleware(CORSMiddleware):
    """Allows the origins in the settings, and logs the origin of each rejected preflight.

    The browser's user only sees that the request failed.
    """

    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        any_port = [
            re.escape(origin.removesuffix(":*")) + "(:[0-9]+)?"
            for origin in origins
            if origin.endswith(":*")
        ]
        super().__init__(
            app,
            allow_origins=origins,
            allow_origin_regex="|".join(any_port) or None,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=[TRACE_HEADER, *PAGE_HEADERS, "Location", "ETag"],
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:  # noqa: PLR2004 - OK
            return response
        reason, origin = bytes(response.body).decode(), request_headers["origin"]
        log_event("cors.rejected", logging.WARNING, origin=origin, reason=reason)
        headers = {
            name: value
            for name, value in response.headers.items()
            if not name.startswith("content-")
        }
        return json_response(ErrorResponse(400, None, headers), reason)

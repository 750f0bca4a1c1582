"""Checks and response handling shared by every route."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.http import checked_query, conditional, query_parameters

NOT_MODIFIED = {"description": "The client's version is current."}


class PlainRoute(APIRoute):
    """Refuses query parameters that the route does not declare, or that are repeated."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        respond = super().get_route_handler()
        known = frozenset(query_parameters(self.dependant))

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                request = checked_query(request, known)
            return await respond(request)

        return checked


class ServiceRoute(PlainRoute):
    """Also adds an ETag to the response of a successful read, and compresses it on request."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - APIRoute's options
        self._reads = set(options.get("methods") or {"GET"}) == {"GET"}
        if self._reads:
            options["responses"] = {**options.get("responses", {}), 304: NOT_MODIFIED}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        respond = super().get_route_handler()

        async def read(request: Request) -> Response:
            return conditional(request, await respond(request))

        return read if self._reads else respond

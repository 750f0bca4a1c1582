"""Whether the client of the current request is still connected."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

# The key of a request's scope that the server's protocol sets when the client disconnects.
DISCONNECTED = "movie_service.disconnected"
# The scope of the current request, None outside a request.
request_scope: ContextVar[Mapping[str, Any] | None] = ContextVar("request_scope", default=None)


def is_disconnected() -> bool:
    """Return whether the client of the current request has disconnected."""
    scope = request_scope.get()
    return scope is not None and DISCONNECTED in scope

"""A bound on the size of a request's body."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import BodyTooLarge

# What no route reads a body of.
BODILESS = {"GET", "HEAD", "OPTIONS"}


class BodyLimitMiddleware:
    """Answers 413 to a body over the limit, announced or sent in chunks.

    FastAPI's own ``max_body_size`` answers in plain text and past the layers that add the trace
    id, so it is not used.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, longer: Mapping[str, int]) -> None:
        """Set the limits.

        Args:
            app: the application to protect.
            max_bytes: the limit, but for
            longer: the limits of some paths.
        """
        self.app = app
        self._max_bytes = max_bytes
        self._longer = longer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is counted as it is read."""
        if scope["type"] != "http" or scope["method"] in BODILESS:
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        max_bytes = self._longer.get(path, self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "0")
        received = 0

        async def counted() -> Message:
            nonlocal received
            if int(announced) > max_bytes:
                raise _too_large(max_bytes)
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _too_large(max_bytes)
            return message

        await self.app(scope, counted, send)


def _too_large(max_bytes: int) -> BodyTooLarge:
    # Raised where the route reads the body, so that it is answered like the route's errors.
    return BodyTooLarge(413, f"The body is over {max_bytes} bytes")

"""Bounds on a request's body: its size, and how long the service waits for the rest of it."""

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import BodyTimeout, BodyTooLarge

# What no route reads a body of.
BODILESS = {"GET", "HEAD", "OPTIONS"}
# Seconds to wait for the next part of a body. Without an end to it, a client that sends no more
# would keep a stopped server from ending.
TIMEOUT = 5.0


class BodyLimitMiddleware:
    """Answers 413 to a body over the limit, announced or in chunks, and 408 to one that stalls.

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
        is_whole = False

        async def counted() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()  # waits for the client to go away
            if int(announced) > max_bytes:
                raise _too_large(max_bytes)
            try:
                async with asyncio.timeout(TIMEOUT):
                    message = await receive()
            except TimeoutError:
                raise BodyTimeout from None
            is_whole = not message.get("more_body")
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _too_large(max_bytes)
            return message

        await self.app(scope, counted, send)


def _too_large(max_bytes: int) -> BodyTooLarge:
    # Raised where the route reads the body, so that it is answered like the route's errors.
    return BodyTooLarge(413, f"The body is over {max_bytes} bytes")

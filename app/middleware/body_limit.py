"""A bound on the size of a request's body."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import BodyTooLarge


class BodyLimitMiddleware:
    """Answers 413 to a body over the limit, announced or sent in chunks.

    FastAPI's own ``max_body_size`` answers in plain text and past the layers that add the trace
    id, so it is not used.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is counted as it is read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        received = 0

        async def counted() -> Message:
            nonlocal received
            if int(announced) > self._max_bytes:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> BodyTooLarge:
        # Raised where the route reads the body, so that it is answered like the route's errors.
        return BodyTooLarge(413, f"The body is over {self._max_bytes} bytes")

"""A start-up that fails says why in a line or two, not in a traceback."""

import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import SetupError


class StartupErrorMiddleware:
    """Replaces the traceback that a server is told of by the SetupError's message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but the report of a failed start-up."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def shorten(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, SetupError):
                message["message"] = str(error)
            await send(message)

        await self.app(scope, receive, shorten)

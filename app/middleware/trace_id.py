"""Trace ids: one per request, the caller's own if it is valid."""

import re
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import TRACE_HEADER, trace_id

_HEADER = TRACE_HEADER.lower().encode()
_VALID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class TraceIdMiddleware:
    """Puts a trace id into the context of a request and into its response.

    A caller's id is accepted if it is 1 to 64 characters of ``A-Z a-z 0-9 . _ -``. Anything else
    could forge a log line, and is replaced by a new id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under its trace id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        value = b""
        for name, sent in scope["headers"]:
            if name == _HEADER and _VALID.fullmatch(sent):
                value = sent
                break
        value = value or token_hex(16).encode()
        trace_id.set(value.decode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_HEADER, value)]
            await send(message)

        await self.app(scope, receive, send_with_id)

"""The access log: one line a request."""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import log_event

_NOSNIFF = (b"x-content-type-options", b"nosniff")


class AccessLogMiddleware:
    """Writes one line a request, and forbids browsers to guess a response's type."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status = 500  # what the outermost layer answers if an error gets past this one

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], _NOSNIFF]
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            log_event(
                "http.request",
                method=scope["method"],
                path=scope["path"],
                query=scope["query_string"].decode("latin-1") or None,
                status=status,
                duration_ms=round((perf_counter() - started) * 1000, 1),
                client=scope["client"][0] if scope.get("client") else None,
            )

"""The access log: one line a request."""

import re
from time import perf_counter
from urllib.parse import unquote_plus

from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import log_event

# A parameter with such a name holds what nobody may read in a log: a key sent in the wrong place.
_SECRET_NAME = re.compile(r"key|token|secret|password|auth", re.IGNORECASE)
_MASK = "***"
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class AccessLogMiddleware:
    """Writes one line a request, and forbids browsers to guess a response's type."""

    def __init__(self, app: ASGIApp, api_key: SecretStr | None) -> None:
        """Set what is never logged.

        Args:
            app: the application whose requests to log.
            api_key: masked in a query, wherever in it.
        """
        self.app = app
        self._api_key = api_key and api_key.get_secret_value()

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
            duration = perf_counter() - started
            scope["app"].state.observer.request_answered(scope, status, duration)
            log_event(
                "http.request",
                method=scope["method"],
                path=scope["path"],
                query=self._masked(scope["query_string"].decode("latin-1")) or None,
                status=status,
                duration_ms=round(duration * 1000, 1),
                client=scope["client"][0] if scope.get("client") else None,
            )

    def _masked(self, query: str) -> str:
        if self._api_key and self._api_key in unquote_plus(query):
            return _MASK
        if not _SECRET_NAME.search(query):
            return query
        pairs = (pair.partition("=") for pair in query.split("&"))
        return "&".join(
            f"{name}={_MASK}" if _SECRET_NAME.search(name) else name + equals + value
            for name, equals, value in pairs
        )

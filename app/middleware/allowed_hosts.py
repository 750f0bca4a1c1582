"""Which host names the service answers to.

A page that a browser has loaded from a name of its own can have that name resolve to this machine
(DNS rebinding), and then reads and writes here as its own origin: no CORS holds it back. That takes
a public name, so addresses and names that no public DNS knows are always allowed.
"""

import logging
import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.logs import log_event

PRIVATE = (".localhost", ".local", ".internal")
MAX_LOGGED = 200

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::[0-9]*)?")


class AllowedHostsMiddleware:
    """Answers 400 to a request whose host is not allowed, or not clear."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        """Set the names.

        Args:
            app: the application to protect.
            allowed: host names in lower case, beside those that are always allowed.
        """
        self.app = app

        @lru_cache(maxsize=32)
        def is_allowed(host: bytes) -> bool:
            return _is_allowed(host.decode("latin-1"), allowed)

        self._is_allowed = is_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to an allowed host."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
            await _refuse("The request must have one Host header")(scope, receive, send)
        elif hosts and not self._is_allowed(hosts[0]):
            log_event(
                "host.rejected",
                logging.WARNING,
                host=hosts[0].decode("latin-1")[:MAX_LOGGED],
                reason="it is not in MOVIE_ALLOWED_HOSTS",
            )
            await _refuse("The service does not answer to this host name")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_allowed(host: str, allowed: Collection[str]) -> bool:
    parts = _HOST.fullmatch(host.lower())
    if parts is None:
        return False
    try:
        if parts["ipv6"]:
            IPv6Address(parts["ipv6"])
            return True
        name = parts["name"].removesuffix(".")
        if "." not in name or name.endswith(PRIVATE) or name in allowed:
            return True
        IPv4Address(name)
    except ValueError:
        return False
    return True


def _refuse(detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, 400)

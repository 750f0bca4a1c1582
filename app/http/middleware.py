"""The outermost middleware. Each duty is one function."""

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from time import perf_counter
from urllib.parse import unquote_plus

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.client import request_scope
from app.errors import UnsupportedEncoding, WrongApiKey
from app.http.allowed_hosts import allowed_hosts
from app.http.connection_limits import warn_if_unlimited
from app.http.cors import CorsMiddleware
from app.http.errors import BodyTimeout, BodyTooLarge, InvalidHost, error_response
from app.logs import TRACE_HEADER, log_event, trace_id
from app.service import SESSIONS, Service

API_KEY_HEADER = "X-API-Key"
# The scope's key that marks a GET as standing for a HEAD: a long body need not be made.
IS_HEAD = "movie_service.is_head"
# Requests without a body that a route reads.
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
# Methods whose routes read a body; an unread one may be compressed.
METHODS_WITH_BODY = {"POST", "PUT", "PATCH"}
MAX_LOGGED = 200
MAX_NAME = 50

_TRACE_HEADER = TRACE_HEADER.lower().encode()
_VALID_TRACE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
# A parameter with such a name may hold a secret sent in the wrong place: mask it.
_SECRET_NAME = re.compile(r"key|token|secret|password|auth", re.IGNORECASE)
_MASK = "***"


class HttpLayer:
    """Trace id, access log, allowed hosts, HEAD, API key and limits on bodies.

    - A request gets a trace id: the caller's, if it is 1 to 64 characters of ``A-Z a-z 0-9 . _ -``.
      Anything else could forge a log line and is replaced by a new id.
    - A request to another host name is a 400.
    - HEAD is answered with the headers of GET and no body. No route declares HEAD, so the OpenAPI
      document lists each read once.
    - A write needs the API key, if one is set, and a body that is not compressed and within its
      limits. FastAPI's ``max_body_size`` is not used: it answers in plain text, and outside the
      layers that add the trace id.
    - Each response forbids browsers to guess its type, and is logged in one line.
    """

    def __init__(
        self, app: ASGIApp, service: Service, hosts: list[str], origins: list[str]
    ) -> None:
        self.app = app
        self._service = service
        self._origins = origins
        self._is_allowed = allowed_hosts(hosts)
        self._api_key = _secret(service.settings.api_key)
        self._is_first_request = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        self._prepare(scope)
        status = 500  # of a response that the outermost error handler sends
        is_head = scope["method"] == "HEAD"
        own_id = trace_id_of(scope)
        trace_id.set(own_id.decode())
        request_scope.set(scope)

        async def send_completed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], _NOSNIFF, (_TRACE_HEADER, own_id)]
            elif is_head:
                if message.get("more_body"):
                    return
                message = {"type": "http.response.body"}
            await send(message)

        if is_head:
            scope = {**scope, "method": "GET", IS_HEAD: True}
        try:
            await self._respond(scope, receive, send_completed)
        except asyncio.CancelledError:
            # A call that has begun goes on in its thread, with the request's session.
            scope[SESSIONS].clear()
            raise
        finally:
            if is_head:
                scope["method"] = "HEAD"
            await self._close_sessions(scope)
            self._report(scope, status, perf_counter() - started)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (problem := self._problem(scope)) is not None:
            response = CorsMiddleware(error_response(problem), self._origins)
            await response(scope, receive, send)
        elif scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
        else:
            await self.app(scope, self._bounded(scope, receive), send)

    def _prepare(self, scope: Scope) -> None:
        if self._is_first_request:
            self._is_first_request = False
            warn_if_unlimited(scope)
        normalize(scope)
        scope[SESSIONS] = []

    async def _close_sessions(self, scope: Scope) -> None:
        """Close the sessions in which a route has left a transaction open."""
        for session in scope[SESSIONS]:
            if session.in_transaction():
                await self._service.database.read_in_thread(session.close)

    def _problem(self, scope: Scope) -> Exception | None:
        """Return why a request is refused, None if it is not."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
            return InvalidHost("The request must have one Host header")
        if hosts and not self._is_allowed(hosts[0]):
            host = hosts[0].decode("latin-1")[:MAX_LOGGED]
            reason = "it is not in MOVIE_ALLOWED_HOSTS"
            log_event("host.rejected", logging.WARNING, host=host, reason=reason)
            return InvalidHost("The service does not answer to this host name")
        is_safe = scope["method"] in SAFE_METHODS
        if is_safe and _path(scope) not in self._service.paths_with_key:
            return None
        headers = Headers(scope=scope)
        if self._api_key and not has_key(headers, self._api_key):
            return WrongApiKey()
        if scope["method"] in METHODS_WITH_BODY and (encoding := unsupported_encoding(headers)):
            return UnsupportedEncoding(
                f"The body is encoded as {encoding}: send it as it is, without Content-Encoding"
            )
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        service = self._service
        max_bytes = service.body_limits.get(_path(scope), service.settings.max_body_bytes)
        return bounded_body(receive, Headers(scope=scope), max_bytes, service.limits.body_timeout)

    def _report(self, scope: Scope, status: int, duration: float) -> None:
        if (observer := self._service.database.observer) is not None:
            observer.request_finished(scope, status, duration)
        log_event(
            "http.request",
            method=scope["method"],
            path=scope["path"],
            query=masked(scope["query_string"].decode("latin-1"), self._api_key) or None,
            status=status,
            duration_ms=round(duration * 1000, 1),
            client=scope["client"][0] if scope.get("client") else None,
        )


def normalize(scope: Scope) -> None:
    """Write header values and the root path of a request in their normal form.

    White space around a header's value is not part of it (RFC 9110, section 5.5). uvicorn's parser
    keeps it at the end.
    """
    scope["headers"] = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
    given = scope.get("root_path", "")
    root_path = "".join(f"/{part}" for part in given.split("/") if part)
    if given != root_path:
        scope["root_path"] = root_path
        scope["path"] = _moved(scope["path"], given, root_path)
        if raw_path := scope.get("raw_path"):
            moved = _moved(raw_path.decode("latin-1"), given, root_path)
            scope["raw_path"] = moved.encode("latin-1")


def _moved(path: str, given: str, root_path: str) -> str:
    """Return a path below a root path in its given form as one below its normal form."""
    if not path.startswith(given):
        return path
    return f"{root_path}/{path.removeprefix(given).removeprefix('/')}"


def trace_id_of(scope: Scope) -> bytes:
    """Return the request's trace id if it is valid, else a new one."""
    for name, value in scope["headers"]:
        if name == _TRACE_HEADER and _VALID_TRACE_ID.fullmatch(value):
            return bytes(value)
    return secrets.token_hex(16).encode()


def masked(query: str, api_key: str | None) -> str:
    """Return a query string without the API key and the values of names that suggest a secret."""
    if api_key and api_key in unquote_plus(query):
        return _MASK
    if not _SECRET_NAME.search(query):
        return query
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(
        f"{name}={_MASK}" if _SECRET_NAME.search(name) else name + equals + value
        for name, equals, value in pairs
    )


def has_key(headers: Headers, api_key: str) -> bool:
    """Return whether a request has the API key."""
    # Compares in constant time: the duration reveals nothing about the key.
    return secrets.compare_digest(headers.get(API_KEY_HEADER, "").encode(), api_key.encode())


def unsupported_encoding(headers: Headers) -> str | None:
    """Return the encoding of a compressed body, None for any other."""
    sent = ", ".join(headers.getlist("content-encoding"))
    codings = {coding.strip().lower() for coding in sent.split(",")}
    return None if codings <= {"", "identity"} else sent[:MAX_NAME]


def bounded_body(
    receive: Receive, headers: Mapping[str, str], max_bytes: int, timeout: float
) -> Receive:
    """Return a ``receive`` that raises if the body is too long or stops arriving.

    It raises in the route, which reads the body, so that these errors are handled like others.
    """
    announced = int(headers.get("content-length", "0"))
    received = 0
    is_whole = False

    async def receive_bounded() -> Message:
        nonlocal received, is_whole
        if is_whole:
            return await receive()  # returns when the client disconnects
        if announced > max_bytes:
            raise BodyTooLarge(413, f"The body is over {max_bytes} bytes")
        try:
            async with asyncio.timeout(timeout):
                message = await receive()
        except TimeoutError:
            raise BodyTimeout from None
        is_whole = not message.get("more_body")
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise BodyTooLarge(413, f"The body is over {max_bytes} bytes")
        return message

    return receive_bounded


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None

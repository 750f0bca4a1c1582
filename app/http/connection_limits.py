"""Limits on one connection: how much memory it may use, and how long it may stay idle.

uvicorn's fast parser has none: it accepts a head of any length, and parses all pipelined requests
even if the client does not read the responses. Its other parser, h11, has limits, but accepts
ambiguous requests, such as one with a length and chunks, which enable request smuggling. Other
servers have other protocols: the HTTP layer warns if a request comes without these limits.

uvicorn promises none of the names that this extends: pyproject.toml bounds its version from above,
and tests/test_private_names.py fails first when they change.
"""

import logging
from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, ClassVar, cast

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.client import DISCONNECTED
from app.limits import Limits
from app.logs import log_event

# The scope's key that marks a request of a bounded connection.
IS_BOUNDED = "movie_service.is_bounded"
# The clients that test clients give, starlette's and httpx': they use no connection.
IN_PROCESS = {("testclient", 50000), ("127.0.0.1", 123)}
# Bytes of a request without its body: h11's own limit.
MAX_HEAD_BYTES = 64 * 1024
# Header fields of a request: a field of four bytes takes thirty times as much memory. Browsers send
# 15 to 20, proxies add a few, and other servers have this limit, too.
MAX_FIELDS = 100
# Unfinished heads above this length, which few clients send, and how many connections may hold one.
LONG_HEAD_BYTES = 8 * 1024
MAX_LONG_HEADS = 100
# Bytes parsed at a time: parsed requests that wait take sixty times as much memory as their bytes.
PIECE_BYTES = 4096

_NOTHING = memoryview(b"")


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too long or too late, and limits what it reads ahead."""

    # Set by limit_connections(): uvicorn creates the instances.
    head_timeout = Limits().head_timeout
    _with_long_head: ClassVar[set["BoundedHttpToolsProtocol"]] = set()

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's signature
        super().__init__(*arguments, **options)
        self._unparsed = _NOTHING
        # Whether a request has begun and not ended, and why it is refused.
        self._is_unfinished = False
        self._refusal: str | None = None
        # Bytes since the end of the last request or body part.
        self._head_bytes = 0
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Start to read from a connection."""
        super().connection_made(cast("Transport", transport))
        self.flow = _PausableFlow(self)
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a closed connection, and mark its current request."""
        if self._timer is not None:
            self._timer.cancel()
        if (scope := cast("dict[str, Any] | None", self.scope)) is not None:
            scope[DISCONNECTED] = True
        self._with_long_head.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes, up to the first request that has to wait."""
        # Reading is paused, so only these leftover bytes wait.
        self._unparsed = memoryview(self._unparsed.tobytes() + data if self._unparsed else data)
        self._parse()

    def on_message_begin(self) -> None:
        """Receive the start of a request."""
        self._is_unfinished = True
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[IS_BOUNDED] = True

    def on_headers_complete(self) -> None:
        """Receive the end of a head."""
        if len(self.headers) > MAX_FIELDS:
            self._refusal = f"The request has over {MAX_FIELDS} header fields."
            raise ValueError(self._refusal)  # uvicorn answers 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body."""
        self._end_head()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Receive the end of a request."""
        self._end_head()
        self._is_unfinished = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request and close the connection."""
        super().send_400_response(self._refusal or msg)

    def on_response_complete(self) -> None:
        """Continue with the next request of the pipeline."""
        super().on_response_complete()
        if self._unparsed:
            self._parse()
            self.flow.resume_reading()

    @property
    def is_behind(self) -> bool:
        """Return whether requests wait for earlier ones to be answered."""
        return bool(self.pipeline or self._unparsed)

    def _parse(self) -> None:
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            piece, self._unparsed = (self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:])
            self._head_bytes += len(piece)
            super().data_received(piece)  # type: ignore[arg-type] # the parser takes any buffer
            if not self.transport.is_closing():
                self._limit_head()
        if not self._unparsed:
            self._unparsed = _NOTHING  # an empty view keeps all received bytes
        self._limit_time()

    def _limit_head(self) -> None:
        if self._head_bytes > LONG_HEAD_BYTES:
            self._with_long_head.add(self)
        # Trailers, which follow a body, count as fields, too.
        if self._is_unfinished and len(self.headers) > MAX_FIELDS:
            self._refuse(f"The request has over {MAX_FIELDS} header fields.")
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._refuse("The head of the request is too long.")
        elif len(self._with_long_head) > MAX_LONG_HEADS and self in self._with_long_head:
            self._refuse("Too many other requests have a long head: send a shorter one.")

    def _refuse(self, reason: str) -> None:
        self.logger.warning(reason)
        self.send_400_response(reason)

    def _end_head(self) -> None:
        self._head_bytes = 0
        self._with_long_head.discard(self)

    def _limit_time(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not is_answering and self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout, self.transport.close)


class _PausableFlow(FlowControl):
    """Stays paused while requests are queued, even if uvicorn calls resume."""

    def __init__(self, protocol: BoundedHttpToolsProtocol) -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Resume reading, unless requests wait."""
        if not self._protocol.is_behind:
            super().resume_reading()


def warn_if_unlimited(scope: Scope) -> None:
    """Log a warning if a request comes by a server that these limits do not apply to."""
    if IS_BOUNDED not in scope and tuple(scope.get("client") or ()) not in IN_PROCESS:
        log_event(
            "connections.unlimited",
            logging.WARNING,
            reason="this server, or its option --http, bypasses the limits of docs/hosting.md",
        )


def limit_connections(limits: Limits) -> None:
    """Make uvicorn use the bounded protocol, regardless of the command that starts it.

    An application cannot see or change the protocol that the command's options select. So the class
    that uvicorn selects by default creates instances of the bounded class.
    """

    def new(cls: type[HttpToolsProtocol], *_: Any, **__: Any) -> HttpToolsProtocol:  # noqa: ANN401 - uvicorn's signature
        return object.__new__(BoundedHttpToolsProtocol if cls is HttpToolsProtocol else cls)

    BoundedHttpToolsProtocol.head_timeout = limits.head_timeout
    HttpToolsProtocol.__new__ = new  # type: ignore[method-assign,assignment] # replaces what object has

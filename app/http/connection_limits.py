"""Limits on one connection: how much memory it may use, and how long it may stay idle.

uvicorn's fast parser has none: it accepts a head of any length, and parses all pipelined requests
even if the client does not read the responses. Its other parser, h11, has limits, but accepts
ambiguous requests, such as one with a length and chunks, which enable request smuggling.

uvicorn promises none of the names that this extends: pyproject.toml bounds its version from above,
and tests/test_private_names.py fails first when they change.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.client import DISCONNECTED
from app.limits import Limits

# Bytes of a request without its body: h11's own limit.
MAX_HEAD_BYTES = 64 * 1024
# Bytes parsed at a time: parsed requests that wait take sixty times as much memory as their bytes.
PIECE_BYTES = 4096


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too long or too late, and limits what it reads ahead."""

    # Set by limit_connections(): uvicorn creates the instances.
    head_timeout = Limits().head_timeout

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's signature
        super().__init__(*arguments, **options)
        self._unparsed = memoryview(b"")
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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes, up to the first request that has to wait."""
        # Reading is paused, so only these leftover bytes wait.
        self._unparsed = memoryview(self._unparsed.tobytes() + data if self._unparsed else data)
        self._parse()

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Receive the end of a request."""
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with the next request of the pipeline."""
        super().on_response_complete()
        if self._unparsed:
            self._parse()
            self.flow.resume_reading()

    @property
    def is_behind(self) -> bool:
        """Whether requests wait for earlier ones to be answered."""
        return bool(self.pipeline or self._unparsed)

    def _parse(self) -> None:
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            piece, self._unparsed = (self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:])
            self._head_bytes += len(piece)
            super().data_received(piece)  # type: ignore[arg-type] # the parser takes any buffer
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.logger.warning("A request's head is over %d bytes.", MAX_HEAD_BYTES)
                self.send_400_response("The head of the request is too long.")
        self._limit_time()

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


def limit_connections(limits: Limits) -> None:
    """Make uvicorn use the bounded protocol, regardless of the command that starts it.

    An application cannot see or change the protocol that the command's options select. So the class
    that uvicorn selects by default creates instances of the bounded class.
    """

    def new(cls: type[HttpToolsProtocol], *_: Any, **__: Any) -> HttpToolsProtocol:  # noqa: ANN401 - uvicorn's signature
        return object.__new__(BoundedHttpToolsProtocol if cls is HttpToolsProtocol else cls)

    BoundedHttpToolsProtocol.head_timeout = limits.head_timeout
    HttpToolsProtocol.__new__ = new  # type: ignore[method-assign,assignment] # replaces what object has

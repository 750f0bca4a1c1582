"""What one connection may hold in memory, and for how long it may do without a request.

uvicorn's fast parser has no limits: it takes a head of any length, and parses every request that
is pipelined, whether or not anybody reads the responses. Its other parser, h11, has limits, but
takes some forms of a request in which request smuggling hides, such as a length beside chunks.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes of a request without its body: h11's own limit.
MAX_HEAD_BYTES = 64 * 1024
# Seconds from opening a connection, or from the first byte of a later head, to a whole head.
# uvicorn waits for ever, and each connection takes a file descriptor, often one of 1,024.
HEAD_TIMEOUT = 10.0
# Bytes that are parsed at a time: a pipeline waits as objects, which take sixty times the room.
PIECE_BYTES = 4096


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too long or too late; reads no more than it can answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._unparsed = memoryview(b"")
        # Bytes since the last request ended or the last part of a body came.
        self._head_bytes = 0
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Read from a connection."""
        super().connection_made(cast("Transport", transport))
        self.flow = _ReadsWhatIsParsed(self)
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, up to the first request that has to wait."""
        # What is left over waits alone, for no more is read meanwhile.
        self._unparsed = memoryview(self._unparsed.tobytes() + data if self._unparsed else data)
        self._parse()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request of the pipeline."""
        super().on_response_complete()
        if self._unparsed:
            self._parse()
            self.flow.resume_reading()

    @property
    def is_behind(self) -> bool:
        """Whether requests that were read wait for others to be answered."""
        return bool(self.pipeline or self._unparsed)

    def _parse(self) -> None:
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            piece, self._unparsed = (
                self._unparsed[:PIECE_BYTES],
                self._unparsed[PIECE_BYTES:],
            )
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
            self._timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)


class _ReadsWhatIsParsed(FlowControl):
    """Keeps a connection paused while requests wait, whoever would have it go on."""

    def __init__(self, protocol: BoundedHttpToolsProtocol) -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._protocol.is_behind:
            super().resume_reading()


def limit_connections() -> None:
    """Have uvicorn use the protocol above, whatever command starts it.

    The command's options choose a protocol, and an application cannot see them. So the class that
    uvicorn chooses by default makes instances of the bounded one.
    """

    def new(cls: type[HttpToolsProtocol], *_: Any, **__: Any) -> HttpToolsProtocol:  # noqa: ANN401 - uvicorn's own
        return object.__new__(BoundedHttpToolsProtocol if cls is HttpToolsProtocol else cls)

    HttpToolsProtocol.__new__ = new  # type: ignore[method-assign,assignment] # see above

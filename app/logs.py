"""Logs: events with the trace id of the request that caused them, as text or JSON lines."""

import json
import logging
import os
import re
import stat
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, TextIO

from app.config import Settings

TRACE_HEADER = "X-Trace-Id"
LOGGER = logging.getLogger("app")

# The trace id of the request that is being served, None outside of one.
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._/:-]+")


class Event(NamedTuple):
    """The message of a log record: an event and what it touched.

    As text: ``movie.created movie_id=7 trace_id=demo-1234``. Values are escaped, so that nothing a
    caller sends can end a line or pass for another field.
    """

    name: str
    fields: dict[str, object]

    def __str__(self) -> str:
        """Return the event as text."""
        pairs = [f" {name}={_escape(value)}" for name, value in self.fields.items()]
        return self.name + "".join(pairs)


def log_event(event: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log an event with the fields that are not None and the trace id of the current request.

    A ``trace_id`` among the fields takes precedence.
    """
    if not LOGGER.isEnabledFor(level):
        return
    fields["trace_id"] = fields.pop("trace_id", None) or trace_id.get()
    given = {name: value for name, value in fields.items() if value is not None}
    # Logger.log() would also look up the calling line, at half of an event's cost.
    LOGGER.handle(logging.LogRecord(LOGGER.name, level, "", 0, Event(event, given), None, None))


def _escape(value: object) -> str:
    if not isinstance(value, str):
        return str(value)  # numbers, nothing else
    return value if _PLAIN_VALUE.fullmatch(value) else json.dumps(value)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO message``, on one line but for a traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        if isinstance(record.msg, Event):
            return f"{_timestamp(record.created)} {record.levelname} {record.msg}"
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's signature
        """Return the time of the record in UTC."""
        return _timestamp(record.created)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event or message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON in ASCII."""
        event: object = record.msg
        name, fields = event if isinstance(event, Event) else (record.getMessage(), {})
        entry: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "event": name,
            **fields,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _timestamp(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class NonBlockingHandler(logging.StreamHandler[TextIO]):
    """Writes to a pipe or a socket without waiting for the program that reads it.

    A reader that stalls would otherwise stop the service at the first line that finds no room.
    That line is kept, those after it are dropped, and ``log.dropped`` tells how many once the
    reader goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        """Take a stream.

        Raises:
            OSError: the system cannot write to it without waiting.
        """
        super().__init__(stream)
        self._file = stream.fileno()
        self._unwritten = b""
        self._dropped = 0
        mode = os.fstat(self._file).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise OSError("only pipes and sockets have a reader")
        self._write_rest()  # nothing, which an older Linux refuses too

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it as dropped."""
        try:
            if self._unwritten and not self._write_rest():
                self._dropped += 1
                return
            if self._dropped:
                dropped = Event("log.dropped", {"count": self._dropped})
                self._add(logging.LogRecord("app", logging.WARNING, "", 0, dropped, None, None))
                self._dropped = 0
            self._add(record)
            self._write_rest()
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)

    def _add(self, record: logging.LogRecord) -> None:
        self._unwritten += f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _write_rest(self) -> bool:
        """Return whether there was room for all that is not written yet."""
        try:
            # Of this call alone: the mode O_NONBLOCK would bind every process that has the pipe.
            written = os.pwritev(self._file, [self._unwritten], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        self._unwritten = self._unwritten[written:]
        return not self._unwritten


def configure_logging(settings: Settings) -> None:
    """Send the service's log lines and uvicorn's to standard error, in one format."""
    handler: logging.StreamHandler[TextIO]
    try:
        handler = NonBlockingHandler(sys.stderr)
    except (AttributeError, OSError):  # a file or a terminal, or a system without such writes
        handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    for name in ("app", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(settings.log_level)
    # The service writes access lines of its own, with the trace id.
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False

"""Log output: the service's events and uvicorn's lines on standard error, as text or JSON."""

import json
import logging
import os
import re
import stat
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

from app.config import Settings
from app.logs import EventRecord

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._/:-]+")


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO message``, on one line except for tracebacks.

    An event is ``movie.created movie_id=7 trace_id=demo-1234``. Values are escaped, so no input can
    end a line or forge a field.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        if isinstance(record, EventRecord):
            pairs = [f" {name}={_escape(value)}" for name, value in record.fields.items()]
            return f"{_timestamp(record.created)} {record.levelname} {record.msg}{''.join(pairs)}"
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's signature
        """Return the time of the record in UTC."""
        return _timestamp(record.created)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, event or message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON in ASCII."""
        fields = record.fields if isinstance(record, EventRecord) else {}
        entry: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _escape(value: object) -> str:
    if not isinstance(value, str):
        return str(value)  # a number
    return value if _PLAIN_VALUE.fullmatch(value) else json.dumps(value)


def _timestamp(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class NonBlockingHandler(logging.StreamHandler[TextIO]):
    """Writes to a pipe or a socket without blocking if its reader stalls.

    The first line that does not fit is kept and the following ones are dropped. When the reader
    resumes, ``log.dropped`` logs their number.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to a stream.

        Raises:
            OSError: the system cannot write to it without blocking.
        """
        super().__init__(stream)
        self._file = stream.fileno()
        self._unwritten = b""
        self._dropped = 0
        mode = os.fstat(self._file).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise OSError("only pipes and sockets have a reader")
        self._write_rest()  # nothing: raises OSError on an older Linux

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop and count it."""
        try:
            if self._unwritten and not self._write_rest():
                self._dropped += 1
                return
            if self._dropped:
                event = EventRecord("app", logging.WARNING, "", 0, "log.dropped", None, None)
                event.fields = {"count": self._dropped}
                self._add(event)
                self._dropped = 0
            self._add(record)
            self._write_rest()
        except Exception:  # noqa: BLE001 - as logging's handlers do
            self.handleError(record)

    def _add(self, record: logging.LogRecord) -> None:
        self._unwritten += f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _write_rest(self) -> bool:
        """Write as much as fits and return whether that is everything."""
        try:
            # A flag of this call: O_NONBLOCK would affect every process that shares the pipe.
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
    # The service writes its own access log, with trace ids.
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False

"""Logs: events with the trace id of the request that caused them, as text or JSON lines."""

import json
import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

from app.config import Settings

TRACE_HEADER = "X-Trace-Id"
LOGGER = logging.getLogger("app")

# The trace id of the request that is being served, None outside of one.
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._/:-]+")


def log_event(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with what it touched, and the trace id of the request that caused it.

    The text is ``movie.created movie_id=7 trace_id=demo-1234``, without fields that are None.
    Values are escaped: nothing that a caller sends can end a line or pose as another field.
    """
    if not LOGGER.isEnabledFor(level):
        return
    fields["trace_id"] = trace_id.get()
    fields = {name: value for name, value in fields.items() if value is not None}
    pairs = " ".join(f"{name}={_escape(value)}" for name, value in fields.items())
    LOGGER.log(level, "%s %s", event, pairs, extra={"event": event, "fields": fields})


def _escape(value: object) -> str:
    if not isinstance(value, str):
        return str(value)  # numbers, nothing else
    return value if _PLAIN_VALUE.fullmatch(value) else json.dumps(value)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO message``, on one line but for a traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's signature
        """Return the time of the record in UTC."""
        return _timestamp(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event or message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON in ASCII."""
        entry: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "event": getattr(record, "event", None) or record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            entry.update(fields)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure_logging(settings: Settings) -> None:
    """Send the service's log lines and uvicorn's to standard error, in one format."""
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

"""Events and the trace id of the request that caused them. See app/http for their output."""

import logging
from contextvars import ContextVar

TRACE_HEADER = "X-Trace-Id"
LOGGER = logging.getLogger("app")

# The trace id of the current request, None outside a request.
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)


class EventRecord(logging.LogRecord):
    """A log record whose message is an event.

    Attributes:
        fields: what the event is about.
    """

    fields: dict[str, object]


def log_event(event: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log an event with the fields that are not None and the trace id of the current request.

    A ``trace_id`` among the fields takes precedence.
    """
    if not LOGGER.isEnabledFor(level):
        return
    fields["trace_id"] = fields.pop("trace_id", None) or trace_id.get()
    # Logger.log() would also look up the calling line, which is half of the cost.
    record = EventRecord(LOGGER.name, level, "", 0, event, None, None)
    record.fields = {name: value for name, value in fields.items() if value is not None}
    LOGGER.handle(record)

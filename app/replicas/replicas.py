"""The replicas: their connections, and whether they are available."""

import logging
from time import monotonic

from sqlalchemy import event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db import create_service_engine, database_error
from app.errors import DatabaseUnavailable
from app.limits import Limits
from app.logs import log_event


class Replicas:
    """The servers in ``read_database_url``.

    Args:
        settings: contain the URL.
        limits: contain the timeouts.

    Attributes:
        engine: connects to the replicas.
        failed: whether the last attempt found none available.
    """

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self.engine = create_service_engine(settings, limits, settings.read_database_url)
        self._pause = limits.replica_pause
        self.failed = False
        self._retry_at = 0.0
        event.listen(self.engine, "handle_error", self._note_failure)

    def may_be_tried(self) -> bool:
        """Return whether to read from a replica. After a failure, one read per pause retries."""
        if not self.failed:
            return True
        now = monotonic()
        if now < self._retry_at:
            return False
        # Other reads go to the primary until this one succeeds.
        self._retry_at = now + self._pause
        return True

    def note_success(self) -> None:
        """Send all reads to the replicas again."""
        if self.failed:
            self.failed = False
            log_event("replicas.resumed")

    def _note_failure(self, context: ExceptionContext) -> None:
        # context.connection is None if it could not be opened.
        is_lost = context.is_disconnect or context.connection is None
        error = context.sqlalchemy_exception
        # A cancelled read may also lose its connection, but the replica is available.
        meaning = database_error(error) if isinstance(error, DBAPIError) else None
        if not is_lost or not isinstance(meaning, DatabaseUnavailable):
            return
        if not self.failed:
            reason = str(context.original_exception)
            log_event("replicas.unavailable", logging.WARNING, reason=reason)
        self.failed = True
        self._retry_at = monotonic() + self._pause

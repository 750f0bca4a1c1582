"""The replicas: where they are read from, and whether they can be."""

import logging
from time import monotonic

from sqlalchemy import event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db import CONNECT_TIMEOUT, create_db_engine
from app.db_errors import database_error
from app.errors import DatabaseUnavailable
from app.logs import log_event

# Seconds that reads stay away from replicas that could not be used.
PAUSE = 5.0


class Replicas:
    """The servers that ``read_database_url`` names.

    Args:
        settings: name them.

    Attributes:
        engine: their connections.
        failed: whether none could be used when one was last tried.
    """

    def __init__(self, settings: Settings) -> None:
        self.engine = create_db_engine(
            str(settings.read_database_url),
            busy_timeout=settings.busy_timeout,
            answer_timeout=settings.busy_timeout + CONNECT_TIMEOUT,
        )
        self.failed = False
        self._resume_at = 0.0
        event.listen(self.engine, "handle_error", self._note_failure)

    def may_be_tried(self) -> bool:
        """Tell whether to read from them: while they cannot be used, one read a PAUSE tries."""
        if not self.failed:
            return True
        now = monotonic()
        if now < self._resume_at:
            return False
        # The others wait for what this one finds.
        self._resume_at = now + PAUSE
        return True

    def note_success(self) -> None:
        """Let every read use them again."""
        if self.failed:
            self.failed = False
            log_event("replicas.resumed")

    def _note_failure(self, context: ExceptionContext) -> None:
        # None: it could not be opened.
        is_lost = context.is_disconnect or context.connection is None
        error = context.sqlalchemy_exception
        # A read that is cancelled may be lost as well, and says nothing of the next one.
        meaning = database_error(error) if isinstance(error, DBAPIError) else None
        if not is_lost or not isinstance(meaning, DatabaseUnavailable):
            return
        if not self.failed:
            reason = str(context.original_exception)
            log_event("replicas.unavailable", logging.WARNING, reason=reason)
        self.failed = True
        self._resume_at = monotonic() + PAUSE

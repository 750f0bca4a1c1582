"""Reads from a replica, repeated on the primary where it fails."""

import logging
from time import monotonic

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db_errors import database_error
from app.dependencies import MAKE_READ_SESSION
from app.errors import DatabaseUnavailable
from app.logs import log_event

# Seconds that reads stay away from replicas that could not be used.
PAUSE = 5.0
UNAVAILABLE = 503


class ReplicaReadsMiddleware:
    """Gives each GET a session of the replicas, and repeats it on the primary after a 503.

    A replica cancels a read that stands in the way of what it has to apply, and it can fail. The
    primary answers the same read then. Where replicas cannot be used at all, reads go to the
    primary at once, but for one every PAUSE seconds, which finds out whether they are back.

    Args:
        app: the application.
        engine: of the replicas.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app = app
        self._engine = engine
        self._resume_at = 0.0
        event.listen(engine, "handle_error", self._note_failure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, a read by a replica if one can."""
        if scope["type"] != "http" or scope["method"] != "GET" or not self._may_try():
            await self.app(scope, receive, send)
            return
        used = failed = False

        def make_session() -> Session:
            nonlocal used
            used = True
            return Session(self._engine)

        async def send_unless_failed(message: Message) -> None:
            nonlocal failed
            if message["type"] == "http.response.start":
                failed = used and message["status"] == UNAVAILABLE
            if not failed:
                await send(message)

        scope[MAKE_READ_SESSION] = make_session
        await self.app(scope, receive, send_unless_failed)
        if failed:
            del scope[MAKE_READ_SESSION]
            await self.app(scope, receive, send)
        elif used and self._resume_at:
            self._resume_at = 0.0
            log_event("replicas.resumed")

    def _may_try(self) -> bool:
        if not self._resume_at:
            return True
        now = monotonic()
        if now < self._resume_at:
            return False
        # The others wait for what this one finds.
        self._resume_at = now + PAUSE
        return True

    def _note_failure(self, context: ExceptionContext) -> None:
        # None: it could not be opened.
        is_lost = context.is_disconnect or context.connection is None
        error = context.sqlalchemy_exception
        # A cancelled read is lost as well, and says nothing of the next one.
        meaning = database_error(error) if isinstance(error, DBAPIError) else None
        if is_lost and isinstance(meaning, DatabaseUnavailable):
            if not self._resume_at:
                reason = str(context.original_exception)
                log_event("replicas.unavailable", logging.WARNING, reason=reason)
            self._resume_at = monotonic() + PAUSE

"""Reads from a replica, repeated on the primary where it fails."""

from sqlmodel import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.dependencies import MAKE_READ_SESSION
from app.replicas.replicas import Replicas

UNAVAILABLE = 503


class ReplicaReadsMiddleware:
    """Gives each GET a session of the replicas, and repeats it on the primary after a 503.

    A replica cancels a read that stands in the way of what it has to apply, and it can fail. The
    primary answers the same read then.

    Args:
        app: the application.
        replicas: where to read first.
    """

    def __init__(self, app: ASGIApp, replicas: Replicas) -> None:
        self.app = app
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, a read by a replica if one can."""
        is_read = scope["type"] == "http" and scope["method"] == "GET"
        if not is_read or not self._replicas.may_be_tried():
            await self.app(scope, receive, send)
            return
        used = failed = False

        def make_session() -> Session:
            nonlocal used
            used = True
            return Session(self._replicas.engine)

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
        elif used:
            self._replicas.note_success()

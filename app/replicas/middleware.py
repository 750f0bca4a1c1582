"""Reads from a replica, repeated on the primary if the replica fails."""

from sqlmodel import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.dependencies import SESSION_MAKER
from app.replicas.replicas import Replicas

UNAVAILABLE = 503
READY = "/ready"


class ReplicaReadsMiddleware:
    """Gives each GET a session of the replicas, and repeats it on the primary after a 503.

    A replica can fail, and it cancels reads that conflict with changes it applies. The primary then
    answers the same read. ``/ready`` always checks the primary.

    Args:
        app: the application.
        replicas: the servers to read from first.
    """

    def __init__(self, app: ASGIApp, replicas: Replicas) -> None:
        self.app = app
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer reads from a replica, if one is available, and other requests from the primary."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        is_read = scope["type"] == "http" and scope["method"] == "GET" and path != READY
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

        scope[SESSION_MAKER] = make_session
        await self.app(scope, receive, send_unless_failed)
        if failed:
            del scope[SESSION_MAKER]
            await self.app(scope, receive, send)
        elif used:
            self._replicas.note_success()

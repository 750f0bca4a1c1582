"""A cache of finished responses that is never stale.

SQLite tells in microseconds whether anybody, in any process, has committed since it was last
asked. So the cache asks on every request, and keeps answers only while nobody has.
"""

import sqlite3
from collections import OrderedDict
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.compression import accepts_gzip
from app.database_file import DatabaseFile
from app.errors import DatabaseError
from app.etags import is_among

MAX_BYTES = 32 * 2**20
# What the objects of an entry cost beside what is in them, in bytes.
ENTRY_OVERHEAD = 2048


# The path, the query and the origin of a request, and the encoding that it accepts.
Key = tuple[str, bytes, bytes, str]
# An opened file, and a number that changes with every commit to it.
Version = tuple[DatabaseFile, int]


class CachedResponse(NamedTuple):
    """A response with status 200, ready to be sent again."""

    headers: list[tuple[bytes, bytes]]
    body: bytes
    etag: str
    route: object

    async def send(self, send: Send, if_none_match: list[str]) -> None:
        """Send the response, or 304 to a caller who has it already."""
        status, headers, body = 200, self.headers, self.body
        if if_none_match and is_among(self.etag, if_none_match):
            status, body = 304, b""
            headers = [header for header in headers if not header[0].startswith(b"content-")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @property
    def size(self) -> int:
        """About how many bytes it takes to keep."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


class ReadCacheMiddleware:
    """Answers a repeated GET from memory for as long as the database stays as it was.

    It is for responses that follow from the path, the query, the database, the caller's origin and
    whether it accepts gzip alone: each form is compressed once. Whatever depends on more, such as
    the trace id, belongs to layers outside of it.

    Args:
        app: the application to answer what is not kept.
        prefixes: the paths to keep answers of, and of what is below them.
        max_bytes: how much memory to use; the least recently used answers go first.
    """

    def __init__(self, app: ASGIApp, prefixes: tuple[str, ...], max_bytes: int = MAX_BYTES) -> None:
        self.app = app
        self._paths = prefixes
        self._folders = tuple(f"{prefix}/" for prefix in prefixes)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._responses: OrderedDict[Key, CachedResponse] = OrderedDict()
        self._version: Version | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from memory, or let the application answer and keep that."""
        version = self._current_version(scope) if self._is_for(scope) else None
        if version is None:
            await self.app(scope, receive, send)
            return
        if version != self._version:
            self._forget_all(version)

        origin, conditions, encodings = b"", [], []
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"if-none-match":
                conditions.append(value.decode("latin-1"))
            elif name == b"accept-encoding":
                encodings.append(value.decode("latin-1"))
        encoding = "gzip" if accepts_gzip(encodings) else ""
        key = (scope["path"], scope["query_string"], origin, encoding)
        response = self._responses.get(key)
        scope["app"].state.observer.cache_asked(hit=response is not None)
        if response is None:
            response = await self._ask(scope, receive, send)
            if response is None:
                return
            # While the answer was made, another request may have seen a newer database.
            if version == self._version:
                self._keep(key, response)
        else:
            self._responses.move_to_end(key)
            scope["route"] = response.route
        await response.send(send, conditions)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> CachedResponse | None:
        """Return the application's answer, or send it and return None if it has no ETag."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        # Whole, whatever version the caller has: it is kept for others too.
        unconditional = [pair for pair in scope["headers"] if pair[0] != b"if-none-match"]
        asked = {**scope, "headers": unconditional}
        try:
            await self.app(asked, receive, collect)
        finally:
            # For the layers outside, which learn from the scope what route has answered.
            scope["route"] = asked.get("route")
        headers = messages[0]["headers"]
        etag = Headers(raw=headers).get("etag")
        if etag is None:
            for message in messages:
                await send(message)
            return None
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return CachedResponse([*headers], body, etag, scope["route"])

    def _is_for(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET":
            return False
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return (
            # Not whatever begins like one: a stream would be collected whole.
            (path in self._paths or path.startswith(self._folders))
            # Another repository may have been put in, on another database.
            and not scope["app"].dependency_overrides
        )

    def _current_version(self, scope: Scope) -> Version | None:
        """Return what changes with every commit, None if it cannot be told."""
        file: DatabaseFile | None = scope["app"].state.database_file
        if file is None:  # the application has not started
            return None
        try:
            file.check()
            return file, file.connection.execute("PRAGMA data_version").fetchone()[0]
        except (DatabaseError, sqlite3.Error):
            return None

    def _forget_all(self, version: Version) -> None:
        self._responses.clear()
        self._bytes = 0
        self._version = version

    def _keep(self, key: Key, response: CachedResponse) -> None:
        self._drop(key)
        self._responses[key] = response
        self._bytes += _cost(key, response)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._responses)))

    def _drop(self, key: Key) -> None:
        if dropped := self._responses.pop(key, None):
            self._bytes -= _cost(key, dropped)


def _cost(key: Key, response: CachedResponse) -> int:
    return sum(map(len, key)) + response.size + ENTRY_OVERHEAD

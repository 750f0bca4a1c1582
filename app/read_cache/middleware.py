"""A cache of finished responses that is never stale.

SQLite reports in microseconds whether any process has committed since the last check. The cache
checks on every request, and keeps responses until the next commit.
"""

from collections import OrderedDict
from collections.abc import Hashable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.dependencies import READS_DATABASE
from app.http import prefers_gzip, unless_current
from app.service import Service

MAX_BYTES = 32 * 2**20
# Bytes of an entry's objects in addition to their content.
ENTRY_OVERHEAD = 2048

# Path, query, origin and accepted encoding of a request, and the dependency overrides.
Key = tuple[str, bytes, bytes, str, Hashable]


class CachedResponse(Response):
    """A response with status 200, ready to be sent again.

    Attributes:
        route: the route that made it.
        size: its approximate size in memory, in bytes.
    """

    def __init__(self, headers: list[tuple[bytes, bytes]], body: bytes, route: object) -> None:
        super().__init__()
        self.raw_headers = headers
        self.body = body
        self.route = route
        self.size = len(body) + sum(len(name) + len(value) for name, value in headers)


class ReadCacheMiddleware:
    """Answers a repeated GET from memory until the database changes.

    The responses may depend only on the path, the query, the database, the client's origin and its
    preference for gzip. Plain and compressed responses are cached separately. Middleware that
    depends on more, such as the trace id, must be outside this one.

    Args:
        app: the application, which answers requests that are not in the cache.
        service: the service that the application belongs to.
        prefixes: the paths whose responses are cached, together with the paths below them.
        max_bytes: memory limit; the least recently used responses are evicted first.
    """

    def __init__(
        self, app: ASGIApp, service: Service, prefixes: tuple[str, ...], max_bytes: int = MAX_BYTES
    ) -> None:
        self.app = app
        self._service = service
        self._paths = prefixes
        self._folders = tuple(f"{prefix}/" for prefix in prefixes)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._responses: OrderedDict[Key, CachedResponse] = OrderedDict()
        self._version: Hashable | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from the cache, or call the application and cache its response."""
        version = self._service.database.version() if self._is_cacheable(scope) else None
        if version is None:
            await self.app(scope, receive, send)
            return
        if version != self._version:
            self._clear(version)

        key, conditions = self._key(scope)
        response = self._responses.get(key)
        if (observer := self._service.database.observer) is not None:
            observer.cache_lookup(hit=response is not None)
        if response is None:
            response = await self._call_app(scope, receive, send)
            if response is None:
                return
            # Cache it only if no other request has seen a newer version meanwhile.
            if version == self._version:
                self._store(key, response)
        else:
            self._responses.move_to_end(key)
            scope["route"] = response.route
        sent = unless_current(response, conditions) if conditions else response
        await sent(scope, receive, send)

    def _key(self, scope: Scope) -> tuple[Key, list[str]]:
        """Return the key of a request, and its values of If-None-Match."""
        origin, conditions, encodings = b"", [], []
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"if-none-match":
                conditions.append(value.decode("latin-1"))
            elif name == b"accept-encoding":
                encodings.append(value.decode("latin-1"))
        encoding = "gzip" if encodings and prefers_gzip(encodings) else ""
        overrides = tuple(self._service.app.dependency_overrides.items())
        return (scope["path"], scope["query_string"], origin, encoding, overrides), conditions

    async def _call_app(self, scope: Scope, receive: Receive, send: Send) -> CachedResponse | None:
        """Return the application's response, or send it and return None if it is not cacheable."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        # Ignore If-None-Match: the full response is cached for all clients.
        unconditional = [pair for pair in scope["headers"] if pair[0] != b"if-none-match"]
        inner = {**scope, "headers": unconditional}
        try:
            await self.app(inner, receive, collect)
        finally:
            # Copy the matched route back for outer middleware.
            scope["route"] = inner.get("route")
        headers = messages[0]["headers"]
        # Do not cache errors or responses that were not read from the service's database.
        if not inner.get(READS_DATABASE) or all(name != b"etag" for name, _ in headers):
            for message in messages:
                await send(message)
            return None
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return CachedResponse([*headers], body, scope["route"])

    def _is_cacheable(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET":
            return False
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        # Match whole path segments: /movies.csv is a stream and must not match /movies.
        return path in self._paths or path.startswith(self._folders)

    def _clear(self, version: Hashable) -> None:
        self._responses.clear()
        self._bytes = 0
        self._version = version

    def _store(self, key: Key, response: CachedResponse) -> None:
        self._evict(key)
        self._responses[key] = response
        self._bytes += _cost(key, response)
        while self._bytes > self._max_bytes:
            self._evict(next(iter(self._responses)))

    def _evict(self, key: Key) -> None:
        if evicted := self._responses.pop(key, None):
            self._bytes -= _cost(key, evicted)


def _cost(key: Key, response: CachedResponse) -> int:
    return sum(map(len, key[:4])) + response.size + ENTRY_OVERHEAD

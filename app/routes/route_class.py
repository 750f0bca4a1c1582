"""What every route of the service does around its function."""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from functools import partial, wraps
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.compression import MIN_BYTES, accepts_gzip, compress
from app.db_errors import is_deadlock, is_interrupted
from app.dependencies import require_api_key
from app.errors import DatabaseBusy, UnsupportedEncoding
from app.etags import etag_of, is_among, of_gzip

T = TypeVar("T")

READS = {"GET"}
MAX_NAME = 50
# Seconds that a request to PostgreSQL waits for a worker thread. All of them are taken for as long
# as this only while the server hangs.
THREAD_TIMEOUT = 5.0
# Whoever has a thread already needs no second permit.
_ADMITTED = anyio.CapacityLimiter(float("inf"))
# They change what a page means though its body may stay.
PAGE_HEADERS = ("X-Total-Count", "Link")
NOT_MODIFIED = {"description": "The caller's version is current."}


class PerEventLoop(Generic[T]):
    """One object for each event loop: what belongs to asyncio works in one of them only.

    A server has one, and another after a restart. A test client outside of a ``with`` gives each
    request its own.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """Return the running event loop's own, made when it is first asked for."""
        loop = asyncio.get_running_loop()
        found = self._made.get(loop)
        return self._made.setdefault(loop, self._make()) if found is None else found


class ServiceRoute(APIRoute):
    """Checks a request before its function runs, and completes the response to a read.

    - A write needs the API key, where the service has one.
    - A query parameter that the route does not know, or that is repeated, is a 422. An empty one
      counts as not given: a form sends the fields that nobody has filled in.
    - A compressed body is a 415.
    - A plain function runs in a worker thread, and its result is validated on the event loop:
      FastAPI would switch threads once more for that, which costs more than the validation of
      what the repository returns. Gain: a tenth of the requests/s of one movie.
    - The result of a read gets an ETag, and is compressed for callers who ask for it.
    - A write waits for its turn, see limit_concurrent_writes(). After a deadlock it is repeated
      once.
    """

    has_etag = True

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - APIRoute's own
        self._reads = set(options.get("methods") or READS) <= READS
        if self._reads and self.has_etag:
            options["responses"] = {**options.get("responses", {}), 304: NOT_MODIFIED}
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = _in_thread(endpoint, reads=self._reads)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        respond = super().get_route_handler()
        known = frozenset(_query_parameters(self.dependant))

        async def read(request: Request) -> Response:
            response = await respond(_with_checked_query(request, known))
            return _with_etag(request, response) if self.has_etag else response

        async def write(request: Request) -> Response:
            require_api_key(request)
            request = _with_checked_query(request, known)
            if self.body_field is not None:
                _check_encoding(request)
            return await respond(request)

        return read if self._reads else write


async def limit_concurrent_writes(app: FastAPI, *, requests: int = 1) -> asyncio.Semaphore:
    """Wait for this write's turn, first come, first served, and return what to release.

    A blocked writer occupies a worker thread and starves reads. SQLite lets one write at a time
    anyway, and its waiters poll.

    Args:
        app: the application.
        requests: how many more requests wait meanwhile.

    Raises:
        DatabaseBusy: the turn did not come within the setting ``busy_timeout``.
    """
    writers: asyncio.Semaphore = app.state.writers.get()
    observer = app.state.observer
    observer.writers_waiting(requests)
    try:
        async with asyncio.timeout(app.state.settings.busy_timeout):
            await writers.acquire()
    except TimeoutError:
        raise DatabaseBusy from None
    finally:
        observer.writers_waiting(-requests)
    return writers


async def run_in_thread(app: FastAPI, function: Callable[[], T], since: float | None = None) -> T:
    """Return what a function returns that waits for the database, in a worker thread.

    Args:
        app: the application.
        function: without arguments.
        since: when the request has begun to wait, on the event loop's clock; now if not given.

    Raises:
        DatabaseBusy: on PostgreSQL, all threads were taken for THREAD_TIMEOUT.
    """
    limiter = anyio.to_thread.current_default_thread_limiter()
    request = object()
    try:
        limiter.acquire_on_behalf_of_nowait(request)
    except anyio.WouldBlock:
        await _wait_for_thread(app, limiter, request, since)
    try:
        return await anyio.to_thread.run_sync(function, limiter=_ADMITTED)
    finally:
        limiter.release_on_behalf_of(request)


async def _wait_for_thread(
    app: FastAPI, limiter: anyio.CapacityLimiter, request: object, since: float | None
) -> None:
    is_postgresql = app.state.kept is None
    now = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at((since or now) + THREAD_TIMEOUT if is_postgresql else None):
            await limiter.acquire_on_behalf_of(request)
    except TimeoutError:
        raise DatabaseBusy from None


def _in_thread(function: Callable[..., Any], *, reads: bool) -> Callable[..., Any]:
    signature = inspect.signature(function)
    # FastAPI passes the request under one name only: the function's own, if it asks for it.
    own_name = next((p.name for p in signature.parameters.values() if p.annotation is Request), "")

    async def read(request: Request, arguments: dict[str, Any]) -> object:
        app = request.app
        kept = app.state.kept
        # A session or repository that somebody has put in may wait for anything.
        if kept is not None and not app.dependency_overrides:
            try:
                with kept.deadline():
                    return function(**arguments)
            except Exception as error:
                if not is_interrupted(error):
                    raise
                app.state.observer.read_interrupted()
        return await run_in_thread(app, partial(function, **arguments))

    async def write(request: Request, arguments: dict[str, Any]) -> object:
        call = partial(function, **arguments)
        since = asyncio.get_running_loop().time()
        turn = await limit_concurrent_writes(request.app)
        try:
            try:
                return await run_in_thread(request.app, call, since)
            except Exception as error:
                if not is_deadlock(error):
                    raise
            # The other transaction goes on, so that this one finds its locks free or waits.
            return await run_in_thread(request.app, call)
        finally:
            turn.release()

    run = read if reads else write

    @wraps(function)
    async def endpoint(**arguments: Any) -> object:  # noqa: ANN401 - the function's own
        request = arguments[own_name] if own_name else arguments.pop("request")
        return await run(request, arguments)

    if not own_name:
        request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
        parameters = [*signature.parameters.values(), request]
        endpoint.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # what FastAPI reads
    return endpoint


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        annotation = parameter.field_info.annotation
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield from (field.alias or name for name, field in annotation.model_fields.items())
        else:
            yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _query_parameters(dependency)


def _with_checked_query(request: Request, known: frozenset[str]) -> Request:
    query = request.scope["query_string"]
    if not query:
        return request
    counts = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        ("extra_forbidden", name, "Unknown query parameter") for name in counts if name not in known
    ] + [
        ("repeated", name, "Send this query parameter once")
        for name, count in counts.items()
        if count > 1 and name in known
    ]
    if problems:
        raise RequestValidationError(
            [
                {"type": kind, "loc": ("query", name), "msg": message}
                for kind, name, message in problems
            ]
        )
    given = b"&".join(pair for pair in query.split(b"&") if pair.partition(b"=")[2])
    if given == query:
        return request
    return Request({**request.scope, "query_string": given}, request.receive)


def _check_encoding(request: Request) -> None:
    sent = ", ".join(request.headers.getlist("content-encoding"))
    codings = {coding.strip().lower() for coding in sent.split(",")}
    if not codings <= {"", "identity"}:
        raise UnsupportedEncoding(
            f"The body is encoded as {sent[:MAX_NAME]}: send it as it is, without Content-Encoding"
        )


def _with_etag(request: Request, response: Response) -> Response:
    if response.status_code != 200:  # noqa: PLR2004 - OK, the only status with an ETag
        return response
    headers, body = response.headers, bytes(response.body)
    etag = etag_of(body, *(headers[name] for name in PAGE_HEADERS if name in headers))
    is_current = is_among(etag, request.headers.getlist("if-none-match"))
    if len(body) >= MIN_BYTES and accepts_gzip(request.headers.getlist("accept-encoding")):
        etag = of_gzip(etag)
        if not is_current:
            response.body = compress(body)
            headers["Content-Length"] = str(len(response.body))
            headers["Content-Encoding"] = "gzip"
    headers["ETag"] = etag
    # no-cache: a browser may keep it, and asks whether it still holds before each use.
    headers["Cache-Control"] = "no-cache"
    headers["Vary"] = "Accept-Encoding"
    if not is_current:
        return response
    kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
    return Response(status_code=304, headers=kept)

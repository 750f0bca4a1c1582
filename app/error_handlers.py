"""From an error to the response that a client gets, in FastAPI's shape: ``{"detail": ...}``."""

import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app import errors
from app.db_errors import code_of, database_error
from app.logs import TRACE_HEADER, log_event, trace_id
from app.middleware.cors import CorsMiddleware


class ErrorBody(BaseModel):
    """Why a request was not carried out."""

    detail: str


class InputProblem(BaseModel):
    """What is wrong with a value that was sent."""

    type: str
    loc: list[str | int] = Field(
        description="Where it was sent: query, path, header or body, and its name"
    )
    msg: str


class InputErrorBody(BaseModel):
    """What is wrong with each of the values that were sent."""

    detail: list[InputProblem]


@dataclass(frozen=True)
class ErrorResponse:
    """How an error is answered.

    Attributes:
        status: of the response.
        detail: its message. The error's own message takes its place where this is None.
        headers: beside those of every response.
        body: the shape of its body.
    """

    status: int
    detail: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: type[BaseModel] = ErrorBody


class BodyTooLarge(HTTPException):
    """The body is over the limit."""

    # An HTTPException, since FastAPI passes on no other error while it reads a body.


class BodyTimeout(HTTPException):
    """The rest of the body did not come in time."""

    def __init__(self) -> None:
        # The client may still send the rest, which must not be taken for its next request.
        super().__init__(408, "The rest of the body did not come in time", {"Connection": "close"})


class UnreadableBody(HTTPException):
    """The body cannot be read as JSON."""


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_LOGGED_FIELDS = 200
NOT_SENT_AS_JSON = {
    "type": "content_type",
    "loc": ("header", "content-type"),
    "msg": "Send the body as JSON, with the header Content-Type: application/json",
}
RETRY = {"Retry-After": "1"}
# An error that is not in the table is answered like its nearest ancestor.
ERROR_RESPONSES: dict[type[Exception], ErrorResponse] = {
    errors.MovieNotFound: ErrorResponse(404, "Movie not found"),
    errors.MoviesNotFound: ErrorResponse(404, None),
    errors.RatingNotFound: ErrorResponse(404, "Rating not found"),
    errors.DuplicateTitle: ErrorResponse(409, "A movie with this title already exists"),
    errors.DuplicateExternalId: ErrorResponse(409, None),
    errors.PreconditionFailed: ErrorResponse(
        412, "The movie has changed since it was read: get it again"
    ),
    errors.WrongApiKey: ErrorResponse(
        401, "This needs the service's API key in the header X-API-Key",
        {"WWW-Authenticate": "ApiKey"},
    ),
    errors.UnsupportedEncoding: ErrorResponse(415, None, {"Accept-Encoding": "identity"}),
    errors.DatabaseBusy: ErrorResponse(503, "The database is busy, try again in a moment", RETRY),
    errors.DatabaseFull: ErrorResponse(507, "The database's disk is full, nothing was stored"),
    errors.IdsExhausted: ErrorResponse(507, "All ids are used, nothing was stored"),
    errors.DatabaseError: ErrorResponse(503, "The database cannot be used at the moment", RETRY),
    errors.DatabaseFileReplaced: ErrorResponse(
        503,
        "The database file was deleted, replaced or overwritten while the service was running. "
        "Restart the service.",
        RETRY,
    ),
    errors.PermissionMissing: ErrorResponse(
        503,
        "The service's database role lacks permissions: it needs SELECT, INSERT, UPDATE and "
        "DELETE on the tables, and USAGE and SELECT on the sequences.",
        RETRY,
    ),
    errors.SequenceBehind: ErrorResponse(
        503,
        "The database gives out ids that are taken, nothing was stored. "
        "To get the fix, run: uv run python scripts/db.py check",
        RETRY,
    ),
    errors.SchemaMissing: ErrorResponse(
        503,
        "The database has no schema or an older one. Run: uv run alembic upgrade head",
        RETRY,
    ),
    errors.SetupError: ErrorResponse(503, None, RETRY),
    RequestValidationError: ErrorResponse(422, None, body=InputErrorBody),
    UnreadableBody: ErrorResponse(400, "There was an error parsing the body"),
    BodyTimeout: ErrorResponse(408, None),
    BodyTooLarge: ErrorResponse(413, None),
    Exception: ErrorResponse(500, "Internal server error"),
}  # fmt: skip


# What any read, any write, and any request with a body can be answered with.
READ_ERRORS = (
    RequestValidationError,
    errors.DatabaseBusy,
    errors.DatabaseUnavailable,
    errors.SchemaMissing,
)
WRITE_ERRORS = (*READ_ERRORS, errors.WrongApiKey, errors.DatabaseFull)
DUPLICATES = (errors.DuplicateTitle, errors.DuplicateExternalId)
BODY_ERRORS = (UnreadableBody, BodyTimeout, BodyTooLarge, errors.UnsupportedEncoding)


def error_responses(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """Return what a route's ``responses=`` says of the errors that it answers with.

    An error is described by the first line of its docstring, or else of its body's.
    """
    documented: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        response = response_of(kind)
        entry = documented.setdefault(response.status, {"model": response.body})
        summary = (kind.__doc__ or response.body.__doc__ or "").partition("\n")[0]
        entry["description"] = "\n\n".join(filter(None, [entry.get("description"), summary]))
        if response.detail is not None:
            content = entry.setdefault("content", {"application/json": {"examples": {}}})
            example = {"value": {"detail": response.detail}}
            content["application/json"]["examples"][kind.__name__] = example
    return documented


def response_of(kind: type[Exception]) -> ErrorResponse:
    """Return how a kind of error, or else its nearest ancestor in the table, is answered."""
    return next(ERROR_RESPONSES[parent] for parent in kind.__mro__ if parent in ERROR_RESPONSES)


async def _answer_service_error(_request: Request, error: errors.MovieServiceError) -> Response:
    response = response_of(type(error))
    return _json(response, response.detail or str(error))


async def _answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    # Without the input that FastAPI would add: it can be what no JSON can hold.
    problems = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in error.errors()]
    if isinstance(error.body, bytes):
        # FastAPI has passed the body on as it came, since its type is not JSON.
        problems = [problem for problem in problems if problem["loc"][0] != "body"]
        problems.append(NOT_SENT_AS_JSON)
    places = dict.fromkeys(".".join(map(str, problem["loc"])) for problem in problems)
    # The names without the values, which may be secret; and not all of thousands of them.
    fields = ",".join(places)
    if key := request.app.state.settings.api_key:
        fields = fields.replace(key.get_secret_value(), "***")  # sent without a name
    log_event("request.rejected", fields=fields[:MAX_LOGGED_FIELDS])
    return _json(response_of(type(error)), problems)


async def _answer_database_error(request: Request, error: DBAPIError) -> Response:
    reason = str(error.orig)
    log_event("database.error", logging.WARNING, code=code_of(error), reason=reason)
    meaning = database_error(error)
    if meaning is None:
        raise error
    return await _answer_service_error(request, meaning)


async def _answer_pool_timeout(request: Request, _: PoolTimeoutError) -> Response:
    return await _answer_service_error(request, errors.DatabaseBusy())


async def _answer_unknown_path(request: Request, error: HTTPException) -> Response:
    """Redirect from a path that ends in a slash too many, by a relative address."""
    scope = request.scope
    path, query = scope["path"].rstrip("/"), scope["query_string"].decode("latin-1")
    is_own = "app_root_path" not in scope  # a mounted application's paths are its own
    if path != scope["path"] and is_own and _routes_of_path(request, path):
        return RedirectResponse(quote(path) + (query and f"?{query}"))
    return _json(ErrorResponse(404, None), error.detail)


async def _answer_wrong_method(request: Request, error: HTTPException) -> Response:
    """Answer OPTIONS, which no route declares, and reject what the path has no route for."""
    headers = {"Allow": ", ".join(_methods_of_path(request, error))}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    return _json(ErrorResponse(405, None, headers), error.detail)


def _methods_of_path(request: Request, error: HTTPException) -> list[str]:
    scope = request.scope
    if "app_root_path" in scope:
        # A mounted application has answered, and names the methods of its path itself.
        methods = set((error.headers or {}).get("Allow", "").split(", "))
    else:
        routes = _routes_of_path(request, scope["path"])
        # Of the first alone: "/movies/top" is not one of "/movies/{movie_id}".
        methods = {
            method
            for route in routes
            if route.path_format == routes[0].path_format
            for method in route.methods or ()
        }
    if "GET" in methods:
        methods.add("HEAD")
    methods.add("OPTIONS")
    return [method for method in METHODS if method in methods]


def _routes_of_path(request: Request, path: str) -> list[RouteContext]:
    path = path.removeprefix(request.scope.get("root_path", ""))
    return [
        route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(path)
    ]


async def _answer_unforeseen_error(request: Request, _: Exception) -> Response:
    unforeseen = ERROR_RESPONSES[Exception]
    response = _json(unforeseen, unforeseen.detail)
    # The outermost layer answers this one, past the middleware that adds these.
    response.headers[TRACE_HEADER] = trace_id.get() or ""
    response.headers["X-Content-Type-Options"] = "nosniff"
    # uvicorn closes the connection, on which the client would otherwise send its next request.
    response.headers["Connection"] = "close"
    with_cors: Any = CorsMiddleware(response, request.app.state.settings)
    return cast("Response", with_cors)  # an ASGI application, which is all that is asked of it


def _json(response: ErrorResponse, detail: object) -> Response:
    # In ASCII: a message can quote half of a surrogate pair, which UTF-8 cannot hold.
    body = json.dumps({"detail": detail}, separators=(",", ":"))
    return Response(body, response.status, response.headers, media_type="application/json")


# Any: each handler is only called with its own kind of error.
EXCEPTION_HANDLERS: dict[
    int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]
] = {
    # Each by itself: one without an answer is a fault, whose traceback belongs in the log.
    **{
        kind: _answer_service_error
        for kind in ERROR_RESPONSES
        if issubclass(kind, errors.MovieServiceError)
    },
    RequestValidationError: _answer_validation_error,
    404: _answer_unknown_path,
    405: _answer_wrong_method,
    DBAPIError: _answer_database_error,
    PoolTimeoutError: _answer_pool_timeout,
    Exception: _answer_unforeseen_error,
}

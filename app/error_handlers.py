"""From an error to the response that a client gets, in FastAPI's shape: ``{"detail": ...}``."""

import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import (
    DatabaseBusy,
    DuplicateTitle,
    MovieNotFound,
    MovieServiceError,
    RatingNotFound,
    SetupError,
    WrongApiKey,
)
from app.tracing import TRACE_HEADER, log_event

HEADERS = {401: {"WWW-Authenticate": "ApiKey"}, 503: {"Retry-After": "1"}}


class ErrorBody(BaseModel):
    """Why a request was not done."""

    detail: str


class InputProblem(BaseModel):
    """What is wrong with a value that was sent."""

    type: str
    loc: list[str | int] = Field(description="Where it was sent: query, path or body, and its name")
    msg: str


class InputErrorBody(BaseModel):
    """What is wrong with each of the values that were sent."""

    detail: list[InputProblem]


RESPONSES: dict[type[MovieServiceError], tuple[int, str]] = {
    MovieNotFound: (404, "Movie not found"),
    RatingNotFound: (404, "Rating not found"),
    DuplicateTitle: (409, "A movie with this title already exists"),
    WrongApiKey: (401, "This needs the service's API key in the header X-API-Key"),
    DatabaseBusy: (503, "The database is busy, try again in a moment"),
}
UNAVAILABLE = (503, "The database cannot be used at the moment")
# How the drivers name their errors: the start of SQLite's name or of PostgreSQL's SQLSTATE.
DATABASE_RESPONSES: dict[tuple[str, ...], tuple[int, str]] = {
    ("SQLITE_BUSY", "SQLITE_LOCKED", "40", "55P03"): RESPONSES[DatabaseBusy],
    ("SQLITE_FULL", "53100"): (507, "The database's disk is full, nothing was stored"),
    ("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY", "08", "25006", "53", "57"): UNAVAILABLE,
    # The database is broken, or not what it was when the service started.
    ("SQLITE_CORRUPT", "SQLITE_NOTADB", "42P01", "42703"): UNAVAILABLE,
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's ``responses=`` tells of the errors that it answers."""
    descriptions = {
        400: "The body cannot be read as JSON",
        401: "The API key is missing or wrong",
        404: "There is none with this id",
        409: "Another movie has this title",
        413: "The body is too large",
        422: "What was sent is not valid",
        503: "The database is busy or out of reach: try again",
        507: "The database's disk is full",
    }
    return {
        status: {
            "model": InputErrorBody if status == 422 else ErrorBody,  # noqa: PLR2004 - HTTP's own
            "description": descriptions[status],
        }
        for status in statuses
    }


async def _answer_service_error(_request: Request, error: MovieServiceError) -> Response:
    return _error(*RESPONSES[type(error)])


async def _answer_setup_error(_request: Request, error: SetupError) -> Response:
    return _error(503, str(error))


async def _answer_validation_error(_request: Request, error: RequestValidationError) -> Response:
    # Without the input that FastAPI would add: it can be what no JSON can hold.
    problems = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in error.errors()]
    return _error(422, problems)


async def _answer_database_error(_request: Request, error: DBAPIError) -> Response:
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
    log_event("database.error", logging.WARNING, code=code, reason=str(error.orig))
    for prefixes, response in DATABASE_RESPONSES.items():
        if str(code).startswith(prefixes):
            return _error(*response)
    if isinstance(error, OperationalError):
        return _error(*UNAVAILABLE)  # all that is not the statement's fault
    raise error


async def _answer_pool_timeout(_request: Request, _: PoolTimeoutError) -> Response:
    return _error(*RESPONSES[DatabaseBusy])


async def _answer_unforeseen_error(_request: Request, _: Exception) -> Response:
    response = _error(500, "Internal server error")
    # The outermost layer answers this one, past the middleware that adds these.
    response.headers[TRACE_HEADER] = correlation_id.get() or ""
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _error(status: int, detail: object) -> Response:
    # In ASCII: a message can quote half of a surrogate pair, which UTF-8 cannot hold.
    body = json.dumps({"detail": detail}, separators=(",", ":"))
    return Response(body, status, HEADERS.get(status), media_type="application/json")


# Any: each handler is only called with its own kind of error.
EXCEPTION_HANDLERS: dict[
    int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]
] = {
    MovieServiceError: _answer_service_error,
    SetupError: _answer_setup_error,
    RequestValidationError: _answer_validation_error,
    DBAPIError: _answer_database_error,
    PoolTimeoutError: _answer_pool_timeout,
    Exception: _answer_unforeseen_error,
}

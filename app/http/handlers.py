"""Exception handlers: they turn what a route raises into a response of the error table."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app import errors
from app.db import code_of, database_error
from app.dependencies import service_of
from app.http.cors import CorsMiddleware
from app.http.errors import ERROR_RESPONSES, error_response, json_response, response_of
from app.http.origins import normalize_origin
from app.http.unknown_paths import answer_unknown_path, answer_wrong_method
from app.logs import TRACE_HEADER, log_event, trace_id

MAX_LOGGED_FIELDS = 200
# A body or a query can have thousands of unknown names.
MAX_PROBLEMS = 100
NOT_SENT_AS_JSON = {
    "type": "content_type",
    "loc": ("header", "content-type"),
    "msg": "Send the body as JSON, with the header Content-Type: application/json",
}

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]


async def answer_service_error(_request: Request, error: errors.MovieServiceError) -> Response:
    """Answer an error that the service raises on purpose."""
    return error_response(error)


async def answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Answer invalid input, and log the names of the invalid fields."""
    # Leave out the input, which FastAPI would add: JSON cannot represent every value.
    problems = [
        {key: problem[key] for key in ("type", "loc", "msg")}
        for problem in error.errors()[:MAX_PROBLEMS]
    ]
    if isinstance(error.body, bytes):
        # FastAPI did not parse the body because its type is not JSON.
        problems = [problem for problem in problems if problem["loc"][0] != "body"]
        problems.append(NOT_SENT_AS_JSON)
    # Names without values, which may be secret, and not thousands of names.
    fields = ",".join(dict.fromkeys(".".join(map(str, problem["loc"])) for problem in problems))
    if key := service_of(request.app).settings.api_key:
        fields = fields.replace(key.get_secret_value(), "***")  # a key sent as a parameter's name
    log_event("request.rejected", fields=fields[:MAX_LOGGED_FIELDS])
    return json_response(response_of(type(error)), problems)


async def answer_database_error(_request: Request, error: DBAPIError) -> Response:
    """Answer a driver's error by its meaning, and log it."""
    log_event("database.error", logging.WARNING, code=code_of(error), reason=str(error.orig))
    meaning = database_error(error)
    if meaning is None:
        raise error
    return error_response(meaning)


async def answer_pool_timeout(_request: Request, _error: PoolTimeoutError) -> Response:
    """Answer a request that got no connection in time."""
    return error_response(errors.DatabaseBusy())


async def answer_unexpected_error(request: Request, _error: Exception) -> Response:
    """Answer a bug without revealing internals."""
    response = json_response(ERROR_RESPONSES[Exception], ERROR_RESPONSES[Exception].detail)
    # Starlette sends this response outside all middleware, which would add these headers.
    response.headers[TRACE_HEADER] = trace_id.get() or ""
    response.headers["X-Content-Type-Options"] = "nosniff"
    # uvicorn closes the connection, which the client would otherwise reuse.
    response.headers["Connection"] = "close"
    origins = [*map(normalize_origin, service_of(request.app).settings.cors_origins)]
    with_cors: Any = CorsMiddleware(response, origins)
    return cast("Response", with_cors)  # an ASGI application, which is all that Starlette needs


EXCEPTION_HANDLERS: dict[int | type[Exception], Handler] = {
    # Registered one by one, so that an error missing from the table is logged as a bug.
    **{
        kind: answer_service_error
        for kind in ERROR_RESPONSES
        if issubclass(kind, errors.MovieServiceError)
    },
    RequestValidationError: answer_validation_error,
    404: answer_unknown_path,
    405: answer_wrong_method,
    DBAPIError: answer_database_error,
    PoolTimeoutError: answer_pool_timeout,
    Exception: answer_unexpected_error,
}

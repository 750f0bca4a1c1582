"""The table of errors: each with its status, message and headers, and how it is documented."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from app import errors


class ErrorBody(BaseModel):
    """Why a request failed."""

    detail: str


class InputProblem(BaseModel):
    """Why a value is invalid."""

    type: str
    loc: list[str | int] = Field(
        description="Where the value was: query, path, header or body, and its name"
    )
    msg: str


class InputErrorBody(BaseModel):
    """Why each invalid value is invalid."""

    detail: list[InputProblem]


@dataclass(frozen=True)
class ErrorResponse:
    """The response to an error.

    Attributes:
        status: its status code.
        detail: its message; None for the message of the error itself.
        headers: in addition to those of every response.
        body: the model of its body.
    """

    status: int
    detail: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: type[BaseModel] = ErrorBody


class InvalidHost(Exception):  # noqa: N818 - named like its siblings in app/errors.py
    """The request's host is missing, ambiguous or not allowed."""


class BodyTooLarge(HTTPException):
    """The body is over the limit."""

    # An HTTPException: FastAPI turns any other error while it reads a body into a 400.


class BodyTimeout(HTTPException):
    """The rest of the body did not arrive in time."""

    def __init__(self) -> None:
        # Close: the client may still send the rest, which would be parsed as its next request.
        super().__init__(
            408, "The rest of the body did not arrive in time", {"Connection": "close"}
        )


class UnreadableBody(HTTPException):
    """The body cannot be read as JSON."""


RETRY = {"Retry-After": "1"}
# An error that is not in the table gets the response of its nearest ancestor.
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
        401, "Send the API key in the header X-API-Key",
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
        "An id sequence is missing or behind the stored ids, nothing was stored. "
        "To get the fix, run: uv run python scripts/db.py check",
        RETRY,
    ),
    errors.SchemaMissing: ErrorResponse(
        503,
        "The database has no schema or an older one. Run: uv run alembic upgrade head",
        RETRY,
    ),
    errors.SetupError: ErrorResponse(503, None, RETRY),
    InvalidHost: ErrorResponse(400, None),
    # Only for the access log, as in nginx: the client no longer receives it.
    errors.ClientDisconnected: ErrorResponse(499, "The client has disconnected"),
    RequestValidationError: ErrorResponse(422, None, body=InputErrorBody),
    UnreadableBody: ErrorResponse(400, "There was an error parsing the body"),
    BodyTimeout: ErrorResponse(408, None),
    BodyTooLarge: ErrorResponse(413, None),
    Exception: ErrorResponse(500, "Internal server error"),
}  # fmt: skip


# FastAPI's arguments for a route without a response body.
NO_CONTENT: dict[str, Any] = {"status_code": 204, "response_class": Response}
# FastAPI's responses= of a route.
Documented = dict[int | str, dict[str, Any]]

# The errors of any read, any write, and any request with a body.
READ_ERRORS = (
    RequestValidationError,
    errors.DatabaseBusy,
    errors.DatabaseUnavailable,
    errors.SchemaMissing,
)
WRITE_ERRORS = (*READ_ERRORS, errors.WrongApiKey, errors.DatabaseFull)
DUPLICATES = (errors.DuplicateTitle, errors.DuplicateExternalId)
BODY_ERRORS = (UnreadableBody, BodyTimeout, BodyTooLarge, errors.UnsupportedEncoding)


def read_errors(*kinds: type[Exception]) -> Documented:
    """Return the ``responses=`` of a read: what any read can raise, and these errors."""
    return error_responses(*READ_ERRORS, *kinds)


def write_errors(
    *kinds: type[Exception], has_body: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses=`` of a write: what any write can raise, and these errors."""
    return error_responses(*WRITE_ERRORS, *(BODY_ERRORS if has_body else ()), *kinds)


def error_responses(*kinds: type[Exception]) -> Documented:
    """Return the ``responses=`` that document a route's errors.

    The description of an error is the first line of its docstring, or else of its body's.
    """
    documented: Documented = {}
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
    """Return the response to a kind of error, or else to its nearest ancestor in the table."""
    return next(ERROR_RESPONSES[parent] for parent in kind.__mro__ if parent in ERROR_RESPONSES)


def error_response(error: Exception) -> Response:
    """Return the response to an error."""
    response = response_of(type(error))
    return json_response(response, response.detail or str(error))


def json_response(response: ErrorResponse, detail: object) -> Response:
    """Return a response with ``detail`` in FastAPI's shape: ``{"detail": ...}``."""
    # In ASCII: a message can quote half of a surrogate pair, which UTF-8 cannot encode.
    body = json.dumps({"detail": detail}, separators=(",", ":"))
    return Response(body, response.status, response.headers, media_type="application/json")

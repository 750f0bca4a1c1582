"""The OpenAPI document: FastAPI's own, completed with what holds for every operation.

It is written for those who call the service, and for programs that generate clients from it.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from fastapi import FastAPI

from app.dependencies import API_KEY_HEADER
from app.error_handlers import ERROR_RESPONSES
from app.logs import TRACE_HEADER
from app.models import INTEGER_MAX

DESCRIPTION = f"""\
An error is `{{"detail": ...}}`: a sentence, or a list that names each invalid value.
Every response carries `{TRACE_HEADER}`, which is also in the service's logs.
A request to a host name that the service does not answer to is a 400.
A read answers an `ETag`: send it back as `If-None-Match` to get 304 while nothing has changed.
"""
# The server is the one that the document comes from. FastAPI puts a root path in front.
SERVERS = [{"url": "/", "description": "This server, without the prefix of a reverse proxy."}]
# A capability with a tag of its own appends to the application's copy.
TAGS = [
    {"name": "movies", "description": "The catalogue and its rankings."},
    {"name": "ratings", "description": "What users think of the movies."},
    {"name": "health", "description": "For those who run the service."},
]
HEADERS: dict[str, dict[str, Any]] = {
    TRACE_HEADER: {
        "description": "The request's id in the logs: the caller's own if it sent a valid one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "X-Total-Count": {
        "description": "How many items the whole list has.",
        "schema": {"type": "integer", "minimum": 0, "maximum": INTEGER_MAX},
    },
    "Link": {
        "description": "The list's first, prev, next and last page, as in RFC 8288.",
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The path of what was created.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "ETag": {
        "description": "Identifies this version of the response.",
        "schema": {"type": "string"},
    },
    "Cache-Control": {
        "description": "A copy may be kept, and must be validated before each use.",
        "schema": {"type": "string", "const": "no-cache"},
    },
    "Retry-After": {
        "description": "After how many seconds to try again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Accept-Encoding": {
        "description": "How a body may be encoded.",
        "schema": {"type": "string", "const": "identity"},
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "schema": {"type": "string", "const": "ApiKey"},
    },
}
HEADERS_OF_STATUS: dict[str, Collection[str]] = {
    "201": ["Location"],
    **{str(response.status): response.headers for response in ERROR_RESPONSES.values()},
}
# Conditions that a request may send, by the status of a response that they can lead to.
CONDITIONS = {
    "304": ("If-None-Match", "ETags of the versions that the caller has. If one is current: 304."),
    "412": ("If-Match", "ETags of the versions that may be changed. Any other version: 412."),
}
API_KEY = {
    "type": "apiKey",
    "in": "header",
    "name": API_KEY_HEADER,
    "description": "Needed to write.",
}


def openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return the function that makes the application's document."""
    original = app.openapi
    completed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal completed
        document = original()
        # FastAPI keeps the document, and makes a new one when a route is added.
        if document is not completed:
            _complete(document, has_key=app.state.settings.api_key is not None)
            completed = document
        return document

    return openapi


def _complete(document: dict[str, Any], *, has_key: bool) -> None:
    document["components"]["headers"] = {
        name: {**header, "required": True} for name, header in HEADERS.items()
    }
    # Without a key none is asked for, so that generated clients send none.
    document["security"] = []
    if has_key:
        document["components"]["securitySchemes"] = {"ApiKey": API_KEY}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            if has_key and method != "get":
                operation["security"] = [{"ApiKey": []}]
            _complete_parameters(operation)
            _document_headers(operation)
    _complete_schemas(document)


def _complete_parameters(operation: dict[str, Any]) -> None:
    parameters = operation.pop("parameters", [])
    for parameter in parameters:
        # null is how a route sees that a parameter was left out; it cannot be sent.
        match parameter["schema"]:
            case {"anyOf": [schema, {"type": "null"}]}:
                del parameter["schema"]["anyOf"]
                parameter["schema"].update(schema)
    for status, (name, description) in CONDITIONS.items():
        if status in operation["responses"]:
            parameters.append(
                {
                    "name": name,
                    "in": "header",
                    "required": False,
                    "description": description,
                    "schema": {"type": "string"},
                }
            )
    if parameters:
        operation["parameters"] = parameters


def _document_headers(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    of_a_read: list[str] = []
    if "304" in responses:
        of_a_read += ["ETag", "Cache-Control"]
        if any(parameter["name"] == "offset" for parameter in operation["parameters"]):
            of_a_read += ["X-Total-Count", "Link"]
    for status, response in responses.items():
        names = [TRACE_HEADER, *HEADERS_OF_STATUS.get(status, ())]
        if status in {"200", "304"}:
            names += of_a_read
        response.setdefault("headers", {}).update(
            {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        )


def _complete_schemas(document: dict[str, Any]) -> None:
    for schema in _dictionaries(document):
        match schema:
            case {"type": "integer", "minimum": low, "maximum": high}:
                # FastAPI writes them as 1.0.
                schema |= {"minimum": int(low), "maximum": int(high)}
                schema["format"] = "int32" if high <= INTEGER_MAX else "int64"
            case {"type": "number"}:
                schema["format"] = "double"
            case {"type": "object", "properties": fields}:
                for field in fields.values():
                    _default_in_words(field)
            case {"type": "string", "enum": [*values]}:
                schema["x-enum-varnames"] = [_name_of(value) for value in values]


def _default_in_words(field: dict[str, Any]) -> None:
    # openapi-typescript has clients send a field that has a default.
    if "default" in field:
        default = f"{field.pop('default')} if left out."
        field["description"] = " ".join(filter(None, [field.get("description"), default]))


def _dictionaries(node: object) -> Iterator[dict[str, Any]]:
    """Yield every dictionary within a part of the document, and itself if it is one."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _dictionaries(child)


def _name_of(value: str) -> str:
    """Return a name for a value of an enum: ``-year`` is ``YEAR_DESC``."""
    name = value.removeprefix("-").replace("-", "_").upper()
    return f"{name}_DESC" if value.startswith("-") else name

"""The OpenAPI document: FastAPI's, completed with headers, conditions and security.

Its readers are people who call the service and programs that generate clients.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from threading import Lock
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.routing import Route

from app.http.conditional import CACHE_CONTROL, conditional
from app.http.errors import ERROR_RESPONSES
from app.http.middleware import API_KEY_HEADER
from app.logs import TRACE_HEADER
from app.models import INTEGER_MAX

DESCRIPTION = f"""\
An error is `{{"detail": ...}}`: a sentence, or a list that names each invalid value.
Every response has the header `{TRACE_HEADER}`, which is also in the service's logs.
A request to an unknown host name is a 400.
A read returns an `ETag`: send it back as `If-None-Match` to get 304 while nothing has changed.
"""
# FastAPI puts the root path in front.
SERVERS = [{"url": "/", "description": "This server."}]
# A capability with its own tag appends to the application's copy.
TAGS = [
    {"name": "movies", "description": "The catalogue and its rankings."},
    {"name": "ratings", "description": "The users' scores for movies."},
    {"name": "health", "description": "Probes for operators."},
]
# The description and the schema of each header.
HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    TRACE_HEADER: (
        "The request's id in the logs: the client's, if it sent a valid one.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ),
    "X-Total-Count": (
        "Number of items in the whole list.",
        {"type": "integer", "minimum": 0, "maximum": INTEGER_MAX},
    ),
    "Link": ("The first, prev, next and last page of the list (RFC 8288).", {"type": "string"}),
    "X-Searched-For": (
        "The text that was searched because nothing matches `q`, percent-encoded UTF-8.",
        {"type": "string"},
    ),
    "Location": (
        "The path of the created resource.", {"type": "string", "format": "uri-reference"}
    ),
    "ETag": ("Identifies this version of the response.", {"type": "string"}),
    "Cache-Control": (
        "A copy may be kept, but must be validated before each use.",
        {"type": "string", "const": CACHE_CONTROL},
    ),
    "Retry-After": ("Seconds to wait before trying again.", {"type": "integer", "minimum": 0}),
    "Accept-Encoding": (
        "Accepted encodings of a body.", {"type": "string", "const": "identity"}
    ),
    "WWW-Authenticate": ("How to authenticate.", {"type": "string", "const": "ApiKey"}),
}  # fmt: skip
OPTIONAL_HEADERS = {"X-Searched-For"}
HEADERS_OF_STATUS: dict[str, Collection[str]] = {
    "201": ["Location"],
    **{str(response.status): response.headers for response in ERROR_RESPONSES.values()},
}
# Conditions that a request may have, by the status of the response if they fail.
CONDITIONS = {
    "304": ("If-None-Match", "ETags that the client has. 304 if one is current."),
    "412": ("If-Match", "ETags of the versions that may be changed. 412 for any other version."),
}
# FastAPI's arguments.
APPLICATION_OPTIONS: dict[str, Any] = {
    "title": "Movie Service",
    "redoc_url": None,
    # The redirect URL would echo the Host header; see unknown_paths.py.
    "redirect_slashes": False,
    # The service does its own tracing and logging; disable FastAPI's per-request lookup.
    "telemetry": {"tracing": False, "metrics": False, "logs": False},
    "generate_unique_id_function": lambda route: route.name,
    "summary": "A movie catalogue with user ratings.",
    "description": DESCRIPTION,
    "contact": {"name": "The Movie Service authors"},
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "servers": SERVERS,
    "openapi_tags": TAGS,
}
API_KEY = {
    "type": "apiKey",
    "in": "header",
    "name": API_KEY_HEADER,
    "description": "Needed to write.",
}


def openapi_of(app: FastAPI, *, has_key: bool) -> Callable[[], dict[str, Any]]:
    """Return a function that returns the application's document.

    Args:
        app: the application.
        has_key: writes need an API key.
    """
    original = app.openapi
    completed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal completed
        document = original()
        # FastAPI keeps the document, and creates a new one when a route is added.
        if document is not completed:
            _complete(document, has_key=has_key)
            completed = document
        return document

    return openapi


def serve_document(app: FastAPI, path: str = "/openapi.json") -> None:
    """Serve the document as other reads are served, and build it outside the event loop."""
    [route] = [r for r in app.routes if isinstance(r, Route) and r.path == path]
    lock = Lock()
    kept: tuple[object, str, bytes] = ({}, "", b"")

    def body_for(root_path: str) -> bytes:
        nonlocal kept
        with lock:
            document = app.openapi()
            if kept[0] is not document or kept[1] != root_path:
                servers = [{"url": root_path}] if root_path else []
                shown = document | {"servers": [*servers, *document["servers"]]}
                kept = (document, root_path, bytes(JSONResponse(shown).body))
            return kept[2]

    async def openapi(request: Request) -> Response:
        body = await run_in_threadpool(partial(body_for, request.scope.get("root_path", "")))
        return conditional(request, Response(body, media_type="application/json"))

    app.router.routes.remove(route)
    app.add_route(path, openapi, include_in_schema=False)


def _complete(document: dict[str, Any], *, has_key: bool) -> None:
    document["components"]["headers"] = {
        name: {
            "description": description,
            "schema": schema,
            "required": name not in OPTIONAL_HEADERS,
        }
        for name, (description, schema) in HEADERS.items()
    }
    # Without a key, generated clients should send none.
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
        if parameter["in"] == "query" and not parameter["required"]:
            parameter["allowEmptyValue"] = True
        # null means an absent parameter; a client cannot send it.
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
    parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
    of_a_read: list[str] = []
    if "304" in responses:
        of_a_read += ["ETag", "Cache-Control"]
    if "offset" in parameters:
        of_a_read += ["X-Total-Count", "Link"]
    if "q" in parameters:
        of_a_read += ["X-Searched-For"]
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
    # openapi-typescript makes a field with a default required.
    if "default" in field:
        default = f"{field.pop('default')} if left out."
        field["description"] = " ".join(filter(None, [field.get("description"), default]))


def _dictionaries(node: object) -> Iterator[dict[str, Any]]:
    """Yield a node of the document and all nodes inside that are dictionaries."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _dictionaries(child)


def _name_of(value: str) -> str:
    """Return the name of an enum's value: ``-year`` is ``YEAR_DESC``."""
    name = value.removeprefix("-").replace("-", "_").upper()
    return f"{name}_DESC" if value.startswith("-") else name

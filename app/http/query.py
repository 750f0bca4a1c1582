"""Query parameters: a typo in a filter must not be ignored."""

import inspect
from collections import Counter
from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

MAX_PARAMETERS = 1000


def query_parameters(dependant: Dependant) -> Iterator[str]:
    """Yield the names of a route's query parameters."""
    for parameter in dependant.query_params:
        annotation = parameter.field_info.annotation
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield from (field.alias or name for name, field in annotation.model_fields.items())
        else:
            yield parameter.alias
    for dependency in dependant.dependencies:
        yield from query_parameters(dependency)


def checked_query(request: Request, known: frozenset[str]) -> Request:
    """Return the request without empty query parameters, which count as absent.

    A form sends the fields that were left blank.

    Raises:
        RequestValidationError: a parameter is unknown or repeated, or there are more than
            MAX_PARAMETERS.
    """
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        message = f"Send at most {MAX_PARAMETERS} query parameters"
        raise RequestValidationError([{"type": "too_long", "loc": ("query",), "msg": message}])
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
    query = request.scope["query_string"]
    given = b"&".join(pair for pair in query.split(b"&") if pair.partition(b"=")[2])
    if given == query:
        return request
    return Request({**request.scope, "query_string": given}, request.receive)

"""Routes that cost one change of thread."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool


class OneHopRoute(APIRoute):
    """Runs a plain function in a worker thread, and checks its answer on the event loop.

    FastAPI would send the answer of a plain function to a thread again, to be checked. Here the
    repository's answers are of the declared type already, so the check takes a microsecond and
    the second change of threads a hundred.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - APIRoute's own
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = _in_thread(endpoint)
        super().__init__(path, endpoint, **options)


def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def run(**arguments: object) -> object:
        return await run_in_threadpool(function, **arguments)

    return run

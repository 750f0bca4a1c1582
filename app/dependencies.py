"""What a route asks for by its signature."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader

from app.db import SessionDep
from app.errors import DatabaseBusy, WrongApiKey
from app.repository import MovieRepository

API_KEY_HEADER = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    description="Needed to write, where the service has a key.",
)

# All of them are asynchronous, so that they cost no thread.


async def get_repository(session: SessionDep) -> MovieRepository:
    """Return the repository of this request."""
    return MovieRepository(session)


async def refuse_query(request: Request) -> None:
    """Refuse any query parameter: the route knows none, and a typo is never ignored."""
    if request.query_params:
        raise RequestValidationError(
            [
                {
                    "type": "extra_forbidden",
                    "loc": ("query", name),
                    "msg": "Extra inputs are not permitted",
                }
                for name in request.query_params
            ]
        )


async def require_api_key(
    request: Request, key: Annotated[str | None, Security(API_KEY_HEADER)]
) -> None:
    """Let only those write who know the API key, where the service has one.

    Raises:
        WrongApiKey: the header is missing, or its key is another one.
    """
    expected = request.app.state.settings.api_key
    if expected is None:
        return
    # Compares in constant time: how long it takes tells nothing of the key.
    if not secrets.compare_digest((key or "").encode(), expected.get_secret_value().encode()):
        raise WrongApiKey


async def wait_for_turn(request: Request) -> AsyncIterator[None]:
    """Let few writers of this process at a time to the database, in the order they came.

    Those that wait for its locks hold a thread each, which reads would lack. SQLite lets one
    write at a time anyway, and those that wait for it poll.

    Raises:
        DatabaseBusy: the turn did not come within the setting ``busy_timeout``.
    """
    writers: asyncio.Semaphore = request.app.state.writers
    try:
        async with asyncio.timeout(request.app.state.settings.busy_timeout):
            await writers.acquire()
    except TimeoutError:
        raise DatabaseBusy from None
    try:
        yield
    finally:
        writers.release()


RepositoryDep = Annotated[MovieRepository, Depends(get_repository)]
NO_QUERY = [Depends(refuse_query)]
# The turn ends with the route and not with the response, which a slow client may take long to read.
WRITE = [Depends(require_api_key), *NO_QUERY, Depends(wait_for_turn, scope="function")]

"""What a route asks for by its signature."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError

from app.db import BUSY_TIMEOUT, SessionDep
from app.errors import DatabaseBusy
from app.repository import MovieRepository

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


async def wait_for_turn(request: Request) -> AsyncIterator[None]:
    """Let one writer of this process at a time to SQLite, in the order they came.

    SQLite lets one write at a time anyway, but those that wait for it poll, each in a thread.

    Raises:
        DatabaseBusy: the turn did not come within BUSY_TIMEOUT.
    """
    lock: asyncio.Lock | None = request.app.state.write_lock
    if lock is None:
        yield
        return
    try:
        async with asyncio.timeout(BUSY_TIMEOUT):
            await lock.acquire()
    except TimeoutError:
        raise DatabaseBusy from None
    try:
        yield
    finally:
        lock.release()


RepositoryDep = Annotated[MovieRepository, Depends(get_repository)]
NO_QUERY = [Depends(refuse_query)]
# The turn ends with the route and not with the response, which a slow client may take long to read.
WRITE = [*NO_QUERY, Depends(wait_for_turn, scope="function")]

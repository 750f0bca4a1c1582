"""Group commit: ratings that arrive during a commit share the next one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.group_commit.waiting import GroupCommit
from app.service import Service


def install(service: Service) -> None:
    """Store ratings in groups while the service runs."""

    @asynccontextmanager
    async def grouped() -> AsyncIterator[None]:
        alone = service.rate
        timeout = max(service.settings.busy_timeout, service.limits.rating_timeout)
        service.rate = GroupCommit(service.database, timeout).add
        try:
            yield
        finally:
            service.rate = alone

    service.lifespans.append(grouped)

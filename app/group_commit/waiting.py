"""Ratings that wait for a commit, and the task that commits them."""

import asyncio
from bisect import bisect_left
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from fastapi import FastAPI

from app.errors import DatabaseBusy, MovieNotFound, MoviesNotFound
from app.logs import trace_id
from app.read_models import NewRating
from app.repository import MovieRepository
from app.routes.route_class import THREAD_TIMEOUT, limit_concurrent_writes, run_in_thread

# As many as a batch over HTTP may hold: a commit of more would keep its first senders waiting.
MAX_RATINGS = 1000


class Waiting(NamedTuple):
    """A rating that is not stored yet."""

    rating: NewRating
    repository: MovieRepository
    stored: asyncio.Future[None]
    # On the event loop's clock.
    since: float


class GroupCommit:
    """Commits one batch at a time. What arrives meanwhile is the next batch.

    A commit waits for the disk, whatever it holds: ratings that share one share that wait. A
    rating that finds no commit running is stored at once and waits for no company.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, rating: NewRating, repository: MovieRepository) -> None:
        """Store a rating, and return when it is committed.

        Raises:
            MovieNotFound: no movie has its id.
            DatabaseError: the commit failed, for this rating and those that shared it.
        """
        if self._app.dependency_overrides:
            # Somebody has put in a repository of their own for each request: no two share one.
            await self._add_alone(rating, repository)
            return
        loop = asyncio.get_running_loop()
        stored = loop.create_future()
        owned = rating._replace(trace_id=trace_id.get())
        self.waiting.append(Waiting(owned, repository, stored, loop.time()))
        self._app.state.observer.writers_waiting(1)
        if self._task is None:
            self._task = asyncio.create_task(self._commit_all())
        await stored

    async def _add_alone(self, rating: NewRating, repository: MovieRepository) -> None:
        turn = await limit_concurrent_writes(self._app)
        try:
            add = partial(repository.add_rating, rating.movie_id, rating.score, rating.user_id)
            await run_in_thread(self._app, add)
        finally:
            turn.release()

    async def _commit_all(self) -> None:
        try:
            while self.waiting:
                await self._commit_next()
        finally:
            self._task = None

    async def _commit_next(self) -> None:
        self._refuse_late()
        arrived = len(self.waiting)
        try:
            turn = await limit_concurrent_writes(self._app, requests=0)
        except Exception as error:  # noqa: BLE001 - each sender answers with it
            return _fail(self._take(arrived), error)
        batch = self._take(MAX_RATINGS)
        try:
            await self._store(batch)
        except Exception as error:  # noqa: BLE001 - each sender answers with it
            _fail(batch, error)
        finally:
            turn.release()
        return None

    def _refuse_late(self) -> None:
        """Refuse those who have waited too long for a commit that a hung server held up."""
        limit = max(self._app.state.settings.busy_timeout, THREAD_TIMEOUT)
        latest = asyncio.get_running_loop().time() - limit
        late = bisect_left(self.waiting, latest, key=attrgetter("since"))
        if late:
            _fail(self._take(late), DatabaseBusy())

    def _take(self, count: int) -> list[Waiting]:
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        self._app.state.observer.writers_waiting(-len(batch))
        return batch

    async def _store(self, batch: list[Waiting]) -> None:
        while batch:
            ratings = [waiting.rating for waiting in batch]
            try:
                add = partial(batch[0].repository.add_ratings, ratings)
                await run_in_thread(self._app, add, batch[0].since)
            except MoviesNotFound as error:
                unknown = {*error.positions}
                _fail([batch[position] for position in unknown], MovieNotFound())
                batch = [waiting for n, waiting in enumerate(batch) if n not in unknown]
            else:
                for waiting in batch:
                    if not waiting.stored.done():
                        waiting.stored.set_result(None)
                return


def _fail(batch: list[Waiting], error: Exception) -> None:
    for waiting in batch:
        # A sender that has gone away has cancelled its own.
        if not waiting.stored.done():
            waiting.stored.set_exception(error)

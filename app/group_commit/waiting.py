"""Ratings that wait for a commit, and the task that commits them."""

import asyncio
from collections import deque
from functools import partial
from typing import NamedTuple

from app.db import Database
from app.errors import DatabaseBusy, MovieNotFound, MoviesNotFound
from app.logs import trace_id
from app.read_models import NewRating
from app.repository import MovieRepository

# The limit of a batch over HTTP. A larger commit would delay its first clients.
MAX_RATINGS = 1000


class Waiting(NamedTuple):
    """A rating that is not stored yet.

    Attributes:
        rating: the rating.
        repository: the repository of its request.
        stored: done when the rating is committed.
        since: its arrival time in seconds, on the event loop's clock.
    """

    rating: NewRating
    repository: MovieRepository
    stored: asyncio.Future[None]
    since: float

    def can_share_commit(self, other: "Waiting") -> bool:
        """Return whether one transaction can store both ratings.

        Each request has its own repository. All use one database, unless a test overrides the
        dependency.
        """
        both = (self.repository, other.repository)
        if any(type(repository) is not MovieRepository for repository in both):
            return False
        return self.repository.session.bind is other.repository.session.bind


class GroupCommit:
    """Commits one batch at a time. Ratings that arrive meanwhile form the next batch.

    A commit waits for the disk once, regardless of the number of ratings it stores. If no commit is
    running, a rating is stored at once.

    Args:
        database: where to store ratings.
        timeout: seconds that a rating may wait for the preceding commit.
    """

    def __init__(self, database: Database, timeout: float) -> None:
        self._database = database
        self._timeout = timeout
        self.waiting: deque[Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    async def add(self, repository: MovieRepository, rating: NewRating) -> None:
        """Store a rating, and return when it is committed.

        Raises:
            MovieNotFound: no movie has the rating's movie id.
            DatabaseError: the commit failed, so all ratings in it fail.
        """
        loop = asyncio.get_running_loop()
        stored = loop.create_future()
        traced = rating._replace(trace_id=trace_id.get())
        self.waiting.append(Waiting(traced, repository, stored, loop.time()))
        self._count_waiting(1)
        if self._task is None:
            self._task = asyncio.create_task(self._commit_all())
        await stored

    async def _commit_all(self) -> None:
        try:
            while self.waiting:
                await self._commit_next()
        finally:
            self._task = None

    async def _commit_next(self) -> None:
        self._fail_late()
        arrived = len(self.waiting)
        batch: list[Waiting] = []
        try:
            unknown = await self._database.write(partial(self._store_next, batch), requests=0)
        except Exception as error:  # noqa: BLE001 - each request raises it
            _fail(batch or self._take(arrived), error)
            return
        if unknown:
            _fail(unknown, MovieNotFound())
        for waiting in batch:
            if not waiting.stored.done():
                waiting.stored.set_result(None)

    def _store_next(self, batch: list[Waiting]) -> list[Waiting]:
        """Store the next batch in one transaction, and return the ratings of unknown movies.

        Args:
            batch: filled with the ratings here. A retry after a deadlock passes the filled batch.
        """
        if not batch:
            first, count = self.waiting[0], 1
            # By index: ratings that arrive meanwhile must not disturb an iteration.
            while count < min(len(self.waiting), MAX_RATINGS) and first.can_share_commit(
                self.waiting[count]
            ):
                count += 1
            batch += self._take(count)
        known, unknown = batch, []
        while known:
            try:
                _store(known)
            except MoviesNotFound as error:
                unknown += [known[position] for position in error.positions]
                known = [waiting for n, waiting in enumerate(known) if n not in error.positions]
            else:
                break
        return unknown

    def _fail_late(self) -> None:
        """Fail ratings that waited longer than the limit, for example behind a hung server."""
        latest = asyncio.get_running_loop().time() - self._timeout
        late = sum(waiting.since < latest for waiting in self.waiting)
        _fail(self._take(late), DatabaseBusy())

    def _take(self, count: int) -> list[Waiting]:
        batch = [self.waiting.popleft() for _ in range(count)]
        self._count_waiting(-count)
        return batch

    def _count_waiting(self, change: int) -> None:
        if change and self._database.observer is not None:
            self._database.observer.waiting_writers_changed(change)


def _store(batch: list[Waiting]) -> None:
    repository, ratings = batch[0].repository, [waiting.rating for waiting in batch]
    if type(repository) is MovieRepository:
        repository.add_ratings(ratings)
    else:
        # A test's repository, which may implement only add_rating().
        [(movie_id, score, user_id, *_)] = ratings
        try:
            repository.add_rating(movie_id, score, user_id)
        except MovieNotFound as error:
            raise MoviesNotFound([0]) from error


def _fail(batch: list[Waiting], error: Exception) -> None:
    for waiting in batch:
        # The future of a cancelled request is done already.
        if not waiting.stored.done():
            waiting.stored.set_exception(error)

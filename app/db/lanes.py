"""Separate thread pools for reads, writes and streams."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import anyio

from app.client import is_disconnected
from app.errors import ClientDisconnected, DatabaseBusy

T = TypeVar("T")

# Seconds between two checks whether the other lane is idle, and how often to check. So a lane that
# gives way still makes progress beside one that is always busy.
STEP_ASIDE, MAX_STEPS_ASIDE = 0.001, 50


class Lane:
    """A fixed number of threads, which calls take in FIFO order.

    Not bound to an event loop, because TestClient outside ``with`` starts one per request.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        timeout: float | None = None,
        *,
        max_waiting: int | None = None,
        gives_way_to: "Lane | None" = None,
        on_waiting: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Start no thread yet.

        Args:
            name: the prefix of the threads' names.
            threads: how many calls may run at a time.
            timeout: seconds that a call may wait for a thread; None for no limit.
            max_waiting: number of calls that may wait; None for no limit.
            gives_way_to: a lane whose calls this lane lets go first, within limits: Python runs one
                thread at a time, so a call that runs beside them slows them down.
            on_waiting: called with the change in the number of requests that wait.
        """
        self._name = name
        self._threads = threads
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._gives_way_to = gives_way_to
        self._on_waiting = on_waiting
        self._free = anyio.Semaphore(threads, fast_acquire=True)
        self._executor: ThreadPoolExecutor | None = None
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, function: Callable[[], T], requests: int = 1) -> T:
        """Return the result of a blocking call, which runs in a thread as soon as one is free.

        A call that has begun keeps its thread until it ends, even if the caller is cancelled.

        Args:
            function: the call.
            requests: number of requests to count as waiting.

        Raises:
            DatabaseBusy: no thread became free in time, or too many calls wait for one.
            ClientDisconnected: the client disconnected while the call waited.
        """
        self._forget_ended_loops()
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            await self._wait(requests)
        for _ in range(MAX_STEPS_ASIDE):
            if self._gives_way_to is None or self._gives_way_to.is_idle:
                break
            await asyncio.sleep(STEP_ASIDE)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, self._name)
        run = copy_context().run
        call = asyncio.get_running_loop().run_in_executor(self._executor, run, function)
        self._running.add(call)
        call.add_done_callback(self._release)
        return await asyncio.shield(call)

    @property
    def is_idle(self) -> bool:
        """Whether no call is running or waiting."""
        return self._free.value == self._threads

    async def _wait(self, requests: int) -> None:
        waiting = self._free.statistics().tasks_waiting
        if self._max_waiting is not None and waiting >= self._max_waiting:
            raise DatabaseBusy
        self._on_waiting(requests)
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError:
            raise DatabaseBusy from None
        finally:
            self._on_waiting(-requests)
        if is_disconnected():
            self._free.release()
            raise ClientDisconnected

    def close(self) -> None:
        """End the threads. No call may be running."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def _forget_ended_loops(self) -> None:
        """Release the threads of calls whose event loop has ended: it calls no callback."""
        for call in [call for call in self._running if call.get_loop().is_closed()]:
            self._running.remove(call)
            self._free.release()

    def _release(self, call: asyncio.Future[T]) -> None:
        self._running.discard(call)
        self._free.release()
        if not call.cancelled():
            call.exception()  # marks it as seen, in case the caller was cancelled

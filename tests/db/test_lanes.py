"""Lanes: worker threads that blocking calls take in FIFO order."""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest

from app.client import DISCONNECTED, request_scope
from app.db.lanes import Lane
from app.errors import ClientDisconnected, DatabaseBusy
from tests.server import DEADLINE_SECONDS


class Call:
    """A call that blocks its thread until the test lets it end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> int:
        """Block, and return the id of the thread."""
        self.begun.set()
        assert self.may_end.wait(DEADLINE_SECONDS)
        return threading.get_ident()

    async def wait_until_begun(self) -> None:
        """Return when the call runs."""
        assert await asyncio.to_thread(self.begun.wait, DEADLINE_SECONDS)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on an event loop. It must end in time."""

    async def limited() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await test

    asyncio.run(limited())


async def let_others_run() -> None:
    """Let every task of the event loop run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_cancelled_caller_does_not_free_the_thread_of_a_running_call() -> None:
    async def test() -> None:
        lane, call = Lane("test", 1, 0.01), Call()
        caller = asyncio.create_task(lane.run(call))
        await call.wait_until_begun()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

        try:
            with pytest.raises(DatabaseBusy):
                await lane.run(lambda: None)
        finally:
            call.may_end.set()
        lane.close()

    run(test())


def test_call_that_fails_after_its_caller_was_cancelled_frees_its_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        lane, call = Lane("test", 1, None), Call()

        def fail() -> None:
            call()
            raise DatabaseBusy

        caller = asyncio.create_task(lane.run(fail))
        await call.wait_until_begun()
        caller.cancel()
        await let_others_run()
        call.may_end.set()

        assert await lane.run(lambda: "free") == "free"
        lane.close()

    run(test())

    # asyncio would log an exception that nothing retrieves.
    assert caplog.records == []


def test_caller_that_is_cancelled_while_it_waits_never_runs() -> None:
    async def test() -> None:
        changes: list[int] = []
        lane, first, never = Lane("test", 1, None, on_waiting=changes.append), Call(), Call()
        running = asyncio.create_task(lane.run(first))
        await first.wait_until_begun()
        waiting = asyncio.create_task(lane.run(never))
        await let_others_run()

        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.may_end.set()
        await running
        assert await lane.run(lambda: "free") == "free"
        lane.close()

        assert not never.begun.is_set()
        assert changes == [1, -1]

    run(test())


def test_calls_run_in_the_order_of_their_arrival() -> None:
    async def test() -> None:
        lane, first, order = Lane("test", 1, None), Call(), list[int]()

        def note(number: int) -> int:
            order.append(number)
            return number

        running = [asyncio.create_task(lane.run(first))]
        await first.wait_until_begun()
        for number in range(10):
            running.append(asyncio.create_task(lane.run(partial(note, number))))
            await let_others_run()

        first.may_end.set()
        # The thread may be free now, but this call may not overtake those that wait.
        running.append(asyncio.create_task(lane.run(partial(note, 10))))
        await asyncio.gather(*running)
        lane.close()

        assert order == [*range(11)]

    run(test())


def test_call_that_finds_no_thread_in_time_is_busy_and_leaves_the_lane_usable() -> None:
    async def test() -> None:
        changes: list[int] = []
        lane, first, late = Lane("test", 1, 0.01, on_waiting=changes.append), Call(), Call()
        running = asyncio.create_task(lane.run(first))
        await first.wait_until_begun()

        with pytest.raises(DatabaseBusy):
            await lane.run(late, requests=3)
        first.may_end.set()
        await running
        assert await lane.run(lambda: "free") == "free"
        lane.close()

        assert not late.begun.is_set()
        assert changes == [3, -3]

    run(test())


def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    async def test() -> None:
        lane, calls = Lane("test", 3, None), [Call() for _ in range(4)]
        running = [asyncio.create_task(lane.run(call)) for call in calls]
        for call in calls[:3]:
            await call.wait_until_begun()
        await let_others_run()
        fourth_waits = not calls[3].begun.is_set()
        for call in calls:
            call.may_end.set()
        threads = await asyncio.gather(*running)
        lane.close()

        assert fourth_waits
        assert len({*threads[:3]}) == 3
        assert {*threads} == {*threads[:3]}

    run(test())


def test_error_of_a_call_reaches_its_caller_and_its_context_reaches_the_thread() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def fail() -> None:
        raise DatabaseBusy

    async def test() -> None:
        lane = Lane("test", 1, None)
        variable.set("set")

        with pytest.raises(DatabaseBusy):
            await lane.run(fail)
        assert await lane.run(variable.get) == "set"
        lane.close()

    run(test())


def test_lane_serves_one_event_loop_after_another() -> None:
    lane = Lane("test", 1, None)

    for number in range(3):
        assert asyncio.run(lane.run(partial(abs, number))) == number

    lane.close()


def test_more_calls_than_may_wait_are_busy_at_once() -> None:
    async def test() -> None:
        lane, first = Lane("test", 1, max_waiting=2), Call()
        running = asyncio.create_task(lane.run(first))
        await first.wait_until_begun()
        waiting = [asyncio.create_task(lane.run(lambda: "waited")) for _ in range(2)]
        await let_others_run()

        with pytest.raises(DatabaseBusy):
            await lane.run(lambda: "too many")
        first.may_end.set()
        await running
        results = await asyncio.gather(*waiting)
        lane.close()

        assert results == ["waited", "waited"]

    run(test())


def test_call_is_dropped_if_its_client_disconnects_while_it_waits() -> None:
    async def test() -> None:
        lane, first, never = Lane("test", 1), Call(), Call()
        running = asyncio.create_task(lane.run(first))
        await first.wait_until_begun()
        scope: dict[str, object] = {}
        request_scope.set(scope)
        waiting = asyncio.create_task(lane.run(never))
        await let_others_run()

        scope[DISCONNECTED] = True
        first.may_end.set()
        with pytest.raises(ClientDisconnected):
            await waiting
        await running
        request_scope.set(None)
        assert await lane.run(lambda: "free") == "free"
        lane.close()

        assert not never.begun.is_set()

    run(test())


def test_call_that_has_begun_is_finished_though_its_client_disconnects() -> None:
    async def test() -> None:
        lane, call, scope = Lane("test", 1), Call(), dict[str, object]()
        request_scope.set(scope)
        running = asyncio.create_task(lane.run(call))
        await call.wait_until_begun()

        scope[DISCONNECTED] = True
        call.may_end.set()
        await running
        lane.close()

    run(test())


def test_lane_gives_way_to_another_that_is_busy() -> None:
    async def test() -> None:
        writes, first, order = Lane("write", 1), Call(), list[str]()
        streams = Lane("stream", 1, gives_way_to=writes)
        writing = asyncio.create_task(writes.run(first))
        await first.wait_until_begun()
        streaming = asyncio.create_task(streams.run(partial(order.append, "stream")))
        await let_others_run()

        first.may_end.set()
        await writing
        order.append("write")
        await streaming
        writes.close()
        streams.close()

        assert order == ["write", "stream"]

    run(test())


def test_call_that_outlives_its_event_loop_gives_its_thread_back() -> None:
    lane, call = Lane("test", 1, timeout=1), Call()

    async def cancel() -> None:
        task = asyncio.create_task(lane.run(call))
        await call.wait_until_begun()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def use() -> None:
        assert await lane.run(lambda: 1) == 1

    try:
        run(cancel())
        call.may_end.set()
        run(use())
    finally:
        lane.close()

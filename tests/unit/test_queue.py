"""The queue runs on a loop whose clock jumps to the next timer, so pauses of minutes take no time."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from typing_extensions import override

from halvard.kube import Unavailable
from halvard.queue import LONGEST_DELAY, Key, Queue

A, B = ("default", "a"), ("default", "b")
ENOUGH = 1000.0


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: what it was asked to wait is added to the clock instead."""

    now = 0.0

    @override
    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()


async def drive(
    work: Callable[[Key], Awaitable[float | None]], *adds: tuple[Key, float], until: float = ENOUGH
) -> None:
    """Adds each key with its delay at the start."""
    queue = Queue(work)
    running = asyncio.create_task(queue.run())
    for key, delay in adds:
        queue.add(key, delay)
    await asyncio.sleep(until)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_key_added_many_times_is_worked_on_once() -> None:
    async def scenario() -> None:
        seen: list[Key] = []

        async def work(key: Key) -> None:
            seen.append(key)

        await drive(work, (A, 0), (B, 0), (A, 0), (A, 0), (B, 0))
        assert seen == [A, B]

    in_virtual_time(scenario)


def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more() -> None:
    async def scenario() -> None:
        times: list[float] = []
        queue: Queue

        async def work(key: Key) -> None:
            times.append(now())
            if len(times) == 1:
                queue.add(key)
                queue.add(key)
                await asyncio.sleep(5)

        queue = Queue(work)
        running = asyncio.create_task(queue.run())
        queue.add(A)
        await asyncio.sleep(ENOUGH)
        running.cancel()
        assert times == [0.0, 5.0]

    in_virtual_time(scenario)


def test_one_key_never_has_two_workers_and_others_do_not_wait_for_it() -> None:
    async def scenario() -> None:
        spans: list[tuple[Key, float, float]] = []

        async def work(key: Key) -> float | None:
            begun = now()
            await asyncio.sleep(10)
            spans.append((key, begun, now()))
            return 0.0 if len(spans) < 4 else None

        await drive(work, (A, 0), (B, 0))
        assert [(key, begun) for key, begun, _ in spans if key == A][:2] == [(A, 0.0), (A, 10.0)]
        assert [(key, begun) for key, begun, _ in spans if key == B][:2] == [(B, 0.0), (B, 10.0)]

    in_virtual_time(scenario)


def test_the_earliest_of_several_delays_counts() -> None:
    async def scenario() -> None:
        times: list[float] = []

        async def work(_: Key) -> None:
            times.append(now())

        await drive(work, (A, 50), (A, 20), (A, 70))
        assert times == [20.0]

    in_virtual_time(scenario)


def test_work_says_itself_when_it_wants_to_look_again() -> None:
    async def scenario() -> None:
        times: list[float] = []

        async def work(_: Key) -> float | None:
            times.append(now())
            return 30.0 if len(times) < 3 else None

        await drive(work, (A, 0))
        assert times == [0.0, 30.0, 60.0]

    in_virtual_time(scenario)


def test_failures_wait_longer_and_longer_up_to_a_limit() -> None:
    async def scenario() -> None:
        times: list[float] = []

        async def work(_: Key) -> None:
            times.append(now())
            raise ValueError("never works")

        await drive(work, (A, 0))
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert all(0.025 * 2**n <= pause <= 0.05 * 2**n + 1e-6 for n, pause in enumerate(pauses[:7]))
        assert max(pauses) <= LONGEST_DELAY + 1e-6
        assert min(pauses[10:]) >= LONGEST_DELAY / 2

    in_virtual_time(scenario)


def test_the_pause_after_a_failure_holds_for_new_adds_too() -> None:
    async def scenario() -> None:
        times: list[float] = []

        async def work(_: Key) -> None:
            times.append(now())
            if len(times) == 1:
                raise Unavailable("too many requests", 429, retry_after=7.0)

        queue = Queue(work)
        running = asyncio.create_task(queue.run())
        queue.add(A)
        await asyncio.sleep(3)
        queue.add(A)
        await asyncio.sleep(ENOUGH)
        running.cancel()
        assert times == [0.0, 7.0]

    in_virtual_time(scenario)


def test_a_success_forgets_the_failures_before_it() -> None:
    async def scenario() -> None:
        times: list[float] = []

        async def work(_: Key) -> float | None:
            times.append(now())
            if len(times) in {1, 2, 3, 5}:
                raise ValueError("not now")
            return 100.0 if len(times) == 4 else None

        await drive(work, (A, 0))
        assert times[5] - times[4] == pytest.approx(0.0375, abs=0.013)

    in_virtual_time(scenario)


def test_a_key_that_fails_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        seen: list[Key] = []

        async def work(key: Key) -> None:
            if key == A:
                raise ValueError("always")
            seen.append(key)

        await drive(work, (A, 0), (B, 0), until=1.0)
        assert seen == [B]

    in_virtual_time(scenario)


def test_nothing_is_kept_of_a_key_that_is_done() -> None:
    async def scenario() -> None:
        async def work(_: Key) -> None:
            pass

        queue = Queue(work)
        running = asyncio.create_task(queue.run())
        queue.add(A)
        await asyncio.sleep(1)
        assert queue._entries == {}
        running.cancel()

    in_virtual_time(scenario)

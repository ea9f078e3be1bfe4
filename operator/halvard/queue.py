"""What is to be looked at next: one deduplicated key a study, one worker at a time on each, failures again later."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from halvard.kube import KubeError, Unavailable

Key = tuple[str, str]
"""Namespace and name of a study."""

FIRST_DELAY = 0.05
LONGEST_DELAY = 10.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """One key: whether it waits, whether it is worked on, how often it failed in a row, until when it pauses."""

    ready: bool = False
    active: bool = False
    not_before: float = 0.0
    failures: int = 0
    wake: asyncio.TimerHandle | None = field(default=None)


class Queue:
    """Keys to work on. What is added while it is being worked on is worked on once more afterwards."""

    def __init__(self, work: Callable[[Key], Awaitable[float | None]], *, workers: int = 8) -> None:
        """`work` returns in how many seconds it wants to look again (None: when something happens), or raises.

        `workers` keys are worked on at the same time, none of them twice.
        """
        self._work = work
        self._workers = workers
        self._entries: dict[Key, Entry] = {}
        self._ready: asyncio.Queue[Key] = asyncio.Queue()

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Works on the key in `delay` seconds or earlier, but not in the pause after a failure."""
        entry = self._entries.setdefault(key, Entry())
        now = asyncio.get_running_loop().time()
        when = max(now + delay, entry.not_before)
        if entry.ready:
            return
        if when <= now:
            self._make_ready(key, entry)
        elif entry.wake is None or when < entry.wake.when():
            self._cancel_wake(entry)
            entry.wake = asyncio.get_running_loop().call_at(when, self._make_ready, key, entry)

    async def run(self) -> None:
        """Works for ever; ends only by being cancelled."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._workers):
                workers.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            await self._run_once(key, self._entries[key])

    async def _run_once(self, key: Key, entry: Entry) -> None:
        entry.ready, entry.active = False, True
        try:
            again = await self._work(key)
        except Exception as error:  # noqa: BLE001  # whatever went wrong with one study, the others go on
            self._failed(key, entry, error)
        else:
            entry.failures, entry.not_before = 0, 0.0
            if again is not None:
                self.add(key, max(0.0, again))
        finally:
            entry.active = False
        if entry.ready:
            self._ready.put_nowait(key)
        elif entry.wake is None:
            del self._entries[key]

    def _failed(self, key: Key, entry: Entry, error: Exception) -> None:
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0**entry.failures) * random.uniform(0.5, 1.0)  # noqa: S311  # jitter
        delay = max(delay, error.retry_after if isinstance(error, Unavailable) else 0.0)
        entry.failures = min(entry.failures + 1, 30)
        entry.not_before = asyncio.get_running_loop().time() + delay
        log.warning("%s/%s: %s; again in %.2f s", *key, error, delay, exc_info=not isinstance(error, KubeError))
        entry.ready = False
        self.add(key, delay)

    def _make_ready(self, key: Key, entry: Entry) -> None:
        self._cancel_wake(entry)
        entry.ready = True
        if not entry.active:
            self._ready.put_nowait(key)

    @staticmethod
    def _cancel_wake(entry: Entry) -> None:
        if entry.wake is not None:
            entry.wake.cancel()
            entry.wake = None

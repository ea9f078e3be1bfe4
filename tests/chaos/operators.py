"""Operator processes that are started in no time: forked from one that has imported everything already."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from halvard import operator

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["chaos.operators", "chaos.failpoints", "chaos.tweaks", "chaos.forked"])
FIRST_ADDRESS = IPv4Address("10.1.0.0")
ENDED = "ended: "  # how the last line of an operator that was not killed begins
ANEW = 0.2  # seconds: as long as importing would take at least, were it not for the fork


class Operator:
    """One process; it may be gone at any moment."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        """Starts it."""
        self._process = FORKS.Process(target=main, args=(dict(environment), log), daemon=True)
        self._process.start()
        self.gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._end)

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self._process.exitcode == -signal.SIGKILL

    def signal(self, number: signal.Signals) -> None:
        """SIGKILL, SIGTERM, SIGSTOP, SIGCONT; one that is gone hears nothing."""
        if self._process.pid is not None and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def kill(self) -> bool:
        """Ends it as a power cut does, and waits until it is gone; whether it died of SIGKILL, and not by itself."""
        self.signal(signal.SIGKILL)
        await self.gone.wait()
        return self.killed

    async def stop(self) -> None:
        """Ends it as Kubernetes does, and waits until it is gone."""
        self.signal(signal.SIGTERM)
        await self.gone.wait()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self.gone.set()


class Operators:
    """Starts operators of one environment, one after the other or side by side."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        """`log` is what all of them write into."""
        self.environment = dict(environment)
        self.log = log
        self.started = 0

    def start(self, **more: str) -> Operator:
        """One that has `more` in its environment, and as each Pod does an address of its own."""
        self.started += 1
        address = {"HALVARD_POD_IP": str(FIRST_ADDRESS + self.started)} if "HALVARD_SERVICE" in self.environment else {}
        return Operator(self.environment | address | more, self.log)

    @contextlib.asynccontextmanager
    async def undisturbed(self, **more: str) -> AsyncIterator[None]:
        """Keeps one alive: whatever it dies of, it is started again."""

        async def keep() -> None:
            while True:
                running = self.start(**more)
                try:
                    await running.gone.wait()
                finally:
                    await running.kill()
                await asyncio.sleep(ANEW)

        async with background(keep()):
            yield


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs them beside what happens here, and no longer; raises what one of them raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


def main(environment: Mapping[str, str], log: Path) -> None:
    """What a forked process is."""
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    from chaos import failpoints, tweaks  # noqa: PLC0415  # they were imported before the fork

    failpoints.arm(environment)
    tweaks.arm(environment)
    try:
        operator.main()
    except SystemExit as end:
        print(f"{ENDED}{end.code}", file=sys.stderr)
        sys.exit(1)
    except BaseException as error:
        print(f"{ENDED}{error!r}", file=sys.stderr)
        raise
    print(f"{ENDED}without an error, as on SIGTERM", file=sys.stderr)

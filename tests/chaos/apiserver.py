"""The API server fails in every way there is, is away and is restarted, clocks are set: nothing is any different."""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from chaos.checks import Trouble, judged
from chaos.kills import at_random
from chaos.operators import background
from chaos.proxy import EVENTS, KINDS, Faults, Proxy
from chaos.report import Report, Scenario
from chaos.script import Script
from chaos.story import Story
from chaos.tweaks import CLOCK, LEASE, PAGE, RELIST, TIMEOUT
from history import History
from lab.control_plane import ControlPlane

STORIES = 12  # different ones
OFTEN = 0.2  # of its occasions a kind befalls when it is alone
MOSTLY = 0.6
RARELY = 0.05
TOGETHER = 0.02  # when all are
OF_WATCHES = 0.4  # there are few, so faults of events come often
NOTHING: Mapping[str, str] = MappingProxyType({})
RELISTS = {RELIST: "1"}
SMALL_PAGES = "3"  # else nothing there is has more than one
SILENCE = ("silence before", "silence after")
IMPATIENT = "1.0"  # seconds
GIVEN_UP = "given up by the operator after its own time-out"
QUICK_LEASE = "3,2,0.2"
ABSENT = 300.0  # seconds

Meanwhile = Callable[[Proxy], Coroutine[Any, Any, None]]


async def nothing(_: Proxy) -> None:
    """Nothing else happens than what the proxy does by itself."""


@contextlib.asynccontextmanager
async def behind(
    troubles: Faults, story: Story, faults: Counter[str]
) -> AsyncIterator[tuple[Proxy, Mapping[str, str]]]:
    """Gives a proxy, and the environment of an operator that hears of the API server through it alone."""
    directory = story.scene.directory / "proxy"
    async with Proxy(Path(story.operators.environment["KUBECONFIG"]), directory, troubles) as proxy:
        paged = {PAGE: SMALL_PAGES} if "410 on a continued list" in troubles.rates else {}
        try:
            yield proxy, {"KUBECONFIG": str(proxy.kubeconfig), **RELISTS, **paged}
        finally:
            faults.update(proxy.counts)


@contextlib.asynccontextmanager
async def through(
    troubles: Faults, meanwhile: Meanwhile, story: Story, faults: Counter[str], told: Mapping[str, str] = NOTHING
) -> AsyncIterator[None]:
    """Keeps one operator alive behind a proxy."""
    async with (
        behind(troubles, story, faults) as (proxy, environment),
        story.operators.undisturbed(**environment, **told),
        background(meanwhile(proxy)),
    ):
        yield


async def disturbed(control_plane: ControlPlane, seed: int, trouble: Trouble) -> Report:
    """Plays a story in a trouble in which reports are stored late."""
    return await judged(control_plane, Script(seed % STORIES), trouble, late)


def late(history: History) -> History:
    """What a Pod waits for its report to be heard of and stored counts in no result."""
    return replace(history, late=True)


def two_clocks(history: History) -> History:
    """The times of an operator are not those of the kubelet."""
    return replace(history, precision=inf)


async def one_kind(control_plane: ControlPlane, seed: int) -> Report:
    """One kind of fault, often; the seed says which."""
    kind = KINDS[seed % len(KINDS)]
    rates = {kind: OF_WATCHES if kind in EVENTS else OFTEN}
    if kind == "410 on a watch":
        rates["watch cut"] = OF_WATCHES  # else it is opened but once
    troubles = Faults(rates=rates, seed=seed)
    return await disturbed(control_plane, seed, functools.partial(through, troubles, nothing))


async def every_kind(control_plane: ControlPlane, seed: int) -> Report:
    """All kinds of faults together."""
    return await disturbed(control_plane, seed, every_kind_of_fault(seed))


def every_kind_of_fault(seed: int) -> Trouble:
    """None of them often."""
    troubles = Faults(rates=dict.fromkeys(KINDS, TOGETHER) | dict.fromkeys(EVENTS, OF_WATCHES / 4), seed=seed)
    return functools.partial(through, troubles, nothing)


async def old_lists(control_plane: ControlPlane, seed: int) -> Report:
    """Operators are killed, and what the next ones list, at their start too, is old more often than not."""
    troubles = Faults(rates={"stale list": MOSTLY, "503": RARELY, "cut after": RARELY}, seed=seed)

    @contextlib.asynccontextmanager
    async def misled(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        async with (
            behind(troubles, story, faults) as (_, environment),
            at_random(Random(seed), story, faults, environment),
        ):
            yield

    return await disturbed(control_plane, seed, misled)


async def given_up(control_plane: ControlPlane, seed: int) -> Report:
    """Answers never come, done or not, and the operator does not wait for them: its own time-out ends the request."""
    troubles = Faults(rates=dict.fromkeys(SILENCE, OFTEN / 2), seed=seed, patience=ABSENT)

    @contextlib.asynccontextmanager
    async def silent(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        async with through(troubles, nothing, story, faults, {TIMEOUT: IMPATIENT}):
            yield
        faults[GIVEN_UP] += story.operators.log.read_text().count("TimeoutError")

    report = await disturbed(control_plane, seed, silent)
    never = () if report.faults[GIVEN_UP] else ("no operator has given up a request",)
    return report + Report(violations=never)


async def away(control_plane: ControlPlane, seed: int) -> Report:
    """The API server cannot be reached for a while, again and again: at times longer than a leader may be silent."""
    random = Random(seed)

    async def come_and_go(proxy: Proxy) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.2, 1.5))
            async with proxy.away(silent=random.random() < 0.5):
                await asyncio.sleep(random.choice((0.1, 0.5, 1.0, 3.0)))

    trouble = functools.partial(through, Faults(), come_and_go, told={LEASE: QUICK_LEASE})
    return await disturbed(control_plane, seed, trouble)


async def long_away(control_plane: ControlPlane, seed: int) -> Report:
    """The API server cannot be reached for five minutes in the middle of a story."""

    async def go_once(proxy: Proxy) -> None:
        await asyncio.sleep(1.0)
        async with proxy.away(silent=seed % 2 == 1):
            await asyncio.sleep(ABSENT)

    def trouble(story: Story, faults: Counter[str]) -> contextlib.AbstractAsyncContextManager[None]:
        story.patience += ABSENT
        return through(Faults(), go_once, story, faults)

    return await disturbed(control_plane, seed, trouble)


async def clocks(control_plane: ControlPlane, seed: int) -> Report:
    """The clocks of operators are wrong by an hour and are set again and again."""

    @contextlib.asynccontextmanager
    async def wrong(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        faults["clock set"] += 1
        async with story.operators.undisturbed(**{CLOCK: str(seed)}):
            yield

    return await judged(control_plane, Script(seed % STORIES), wrong, two_clocks)


async def restarts(control_plane: ControlPlane, seed: int) -> Report:
    """API server and etcd are killed and started again in the middle of a story."""
    random = Random(seed)

    @contextlib.asynccontextmanager
    async def restarted(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        async def restart() -> None:
            while True:
                await asyncio.sleep(random.uniform(0.5, 2.0))
                with_store = random.random() < 0.5
                faults["API server and etcd restarted" if with_store else "API server restarted"] += 1
                restarting = asyncio.create_task(asyncio.to_thread(control_plane.restart, store=with_store))
                try:
                    await asyncio.shield(restarting)
                finally:
                    await restarting  # what comes next needs it

        async with story.operators.undisturbed(**RELISTS), background(restart()):
            yield

    return await disturbed(control_plane, seed, restarted)


SCENARIOS = (
    Scenario("one kind of API fault", one_kind, rounds=2 * len(KINDS)),
    Scenario("all API faults", every_kind, rounds=18),
    Scenario("old lists", old_lists, rounds=8),
    Scenario("no answer", given_up, rounds=2),
    Scenario("API server away", away, rounds=12),
    Scenario("API server away for long", long_away, rounds=1),
    Scenario("clocks", clocks, rounds=6),
    Scenario("API server and etcd restarted", restarts, rounds=6, shares=False),
)

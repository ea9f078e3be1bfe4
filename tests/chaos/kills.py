"""Operators are killed, by SIGKILL, at every failpoint and at random moments, and nothing is any different."""

import asyncio
import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from dataclasses import replace
from random import Random
from types import MappingProxyType

from chaos.checks import judged
from chaos.failpoints import FAILPOINT, FAILPOINTS, PASSING
from chaos.operators import background
from chaos.report import Report, Scenario
from chaos.script import Script
from chaos.story import Story
from halvard.kube import ENDPOINT_SLICES, LEASES
from lab.control_plane import ControlPlane

STORIES = 12  # different ones
DEATHS = 20  # at each failpoint
MOST_STORIES = 40  # for that; short ones, where it takes more than a few
TOO_MANY = 4  # deeds of a script without which an operator has not come to its failpoint
ENOUGH = 99.0  # a target that everybody reaches
AT_RANDOM = "SIGKILL at random"
CREATED_ONCE = {"create leases": LEASES, "create endpointslices": ENDPOINT_SLICES}  # if nobody deletes them
PASSED_ONCE = (*CREATED_ONCE, "get services", "get endpointslices", "update endpointslices")  # in a short life
LONGEST_LIFE = 1.2  # seconds; an operator needs about a quarter of one to lead
AFTERTHOUGHT = 0.1  # seconds within which an operator is still busy with what was just done


async def anywhere(control_plane: ControlPlane, seed: int) -> Report:
    """One story, each of its operators killed at a random moment of its life."""
    return await judged(control_plane, Script(seed % STORIES), functools.partial(at_random, Random(seed)))


async def at_a_failpoint(control_plane: ControlPlane, seed: int) -> Report:
    """Stories until operators have died `DEATHS` times at one failpoint; the seed says at which."""
    failpoint, random, report = FAILPOINTS[seed % len(FAILPOINTS)], Random(seed), Report()
    script, died = Script(seed % STORIES), kind(failpoint)
    for _ in range(MOST_STORIES):
        tries = DEATHS - report.faults[died] + 2  # the first operator of a story takes over from nobody
        at_it = functools.partial(at, [failpoint] * tries, random)
        report += await judged(control_plane, script, at_it)
        if report.faults[died] >= DEATHS or report.violations:
            return report
        script = replace(script, target=ENOUGH) if "delete" in failpoint else Script((script.seed + 1) % STORIES)
    missing = f"operators died {report.faults[died]} times {failpoint}, not {DEATHS} times"
    return report + Report(violations=(missing,))


def kind(failpoint: str) -> str:
    """What the summary calls it."""
    return f"SIGKILL {failpoint}"


@contextlib.asynccontextmanager
async def at_random(
    random: Random, story: Story, faults: Counter[str], told: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[None]:
    """Keeps one operator alive, none of them for long, but every fourth until the script has gone on.

    `told`: what is in their environment.
    """

    async def kill() -> None:
        for number in itertools.count(1):
            lives = bring_forward if number % 4 == 0 else live_shortly
            faults[AT_RANDOM] += await lives(story, random, told)

    async with background(kill()):
        yield


async def live_shortly(story: Story, random: Random, told: Mapping[str, str]) -> bool:
    """An operator lives for a while; whether it was killed then."""
    running = story.operators.start(**told)
    try:
        await asyncio.sleep(random.uniform(0, LONGEST_LIFE))
    finally:
        killed = await running.kill()
    return killed


@contextlib.asynccontextmanager
async def at(failpoints: Iterable[str], random: Random, story: Story, faults: Counter[str]) -> AsyncIterator[None]:
    """Keeps one operator alive: one dies at the next failpoint, the one after it brings the story forward."""

    async def kill() -> None:
        for failpoint in failpoints:
            effect = failpoint.partition(" ")[2]
            if effect in CREATED_ONCE:
                await story.forget(CREATED_ONCE[effect])
            passing = 1 if effect in PASSED_ONCE else random.choice((1, 1, 2))
            armed = story.operators.start(**{FAILPOINT: failpoint, PASSING: str(passing)})
            try:
                await first(armed.gone.wait(), deeds(story, TOO_MANY))
                at_it = armed.killed
            finally:
                killed = await armed.kill()
            faults[kind(failpoint) if at_it else AT_RANDOM] += killed
            if not story.over:
                faults[AT_RANDOM] += await bring_forward(story, random, {})
        async with story.operators.undisturbed():
            await asyncio.Event().wait()

    async with background(kill()):
        yield


async def bring_forward(story: Story, random: Random, told: Mapping[str, str]) -> bool:
    """An operator lives until the script has gone on, and for a moment; whether it was killed then."""
    running = story.operators.start(**told)
    try:
        await first(running.gone.wait(), deeds(story, 1))
        await asyncio.sleep(random.uniform(0, AFTERTHOUGHT))
    finally:
        killed = await running.kill()
    return killed


async def deeds(story: Story, count: int) -> None:
    """Waits for that many more deeds of the script."""
    for _ in range(count):
        await story.progressed.wait()


async def first(*events: Awaitable[object]) -> None:
    """Waits for one of them."""
    tasks = [asyncio.ensure_future(event) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


SCENARIOS = (
    Scenario("failpoints", at_a_failpoint, rounds=len(FAILPOINTS)),
    Scenario("kills", anywhere, rounds=20),
)

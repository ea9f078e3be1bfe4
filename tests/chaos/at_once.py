"""Stories in which everything happens at once: each Pod lives its own life, and nobody waits for the operator.

Reports come together, turns take up several of them, a Pod ends while its report is under way: and then operators die,
or the API server fails. What comes of it depends on who was faster, so it is compared with nothing; but every rule of
the history checker has to hold, and the Study has to end.
"""

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator
from random import Random

from chaos.apiserver import STORIES, every_kind_of_fault, late
from chaos.checks import Operators, Trouble, held
from chaos.kills import at_random
from chaos.outcome import ran
from chaos.report import Report, Scenario
from chaos.script import Deed, Script
from chaos.story import EVICTED, Story, leaves, runs
from cluster.scripted import now
from halvard.kube import Manifest
from history import named
from lab.control_plane import ControlPlane

FAULTS: tuple[Deed, ...] = ("evicted", "crashes", "evicted", "last words") * 2
TOO_LATE = named(["decided"])  # the Pod that a dead operator asked for may come when the next one has decided otherwise
LOOK = 0.05  # seconds
PATIENCE = 600.0  # seconds until a Study has to have ended, however often its turns fail
TRAINS = 0.3  # seconds, at most, before a trainer has come to its budget
HEAD_START = 0.1  # seconds, at most, that a report has before its Pod is evicted


async def at_once(control_plane: ControlPlane, seed: int) -> Report:
    """Operators are killed at random moments where the seed is even, else the API server fails in every way."""
    script = Script(seed % STORIES, trials=24, parallelism=8, faults=FAULTS)
    if seed % 2:
        return await held(control_plane, script, every_kind_of_fault(seed), everything, excused=TOO_LATE, known=late)
    kills: Trouble = functools.partial(at_random, Random(seed))
    return await held(control_plane, script, kills, everything, excused=TOO_LATE)


async def everything(story: Story, operators: Operators) -> list[str]:
    """Plays a script, all of it at once; raises Stuck where it does not end."""
    lives, deeds = dict[str, asyncio.Task[None]](), itertools.count()
    async with operators:
        await story.apply()
        try:
            async with asyncio.timeout(PATIENCE):
                while not (story.over and story.idle()):
                    for pod in story.there():
                        uid = pod["metadata"]["uid"]
                        if uid not in lives:
                            lives[uid] = asyncio.create_task(life(story, pod, deeds))
                    for ended in filter(asyncio.Task.done, lives.values()):
                        ended.result()
                    await asyncio.sleep(LOOK)
        except TimeoutError as error:
            raise story.stuck() from error
        finally:
            for task in lives.values():
                task.cancel()
            await asyncio.gather(*lives.values(), return_exceptions=True)
    return []


async def life(story: Story, pod: Manifest, deeds: Iterator[int]) -> None:
    """A Pod runs, does what the script says, and is let go once somebody deletes it, whatever it does then."""
    uid = pod["metadata"]["uid"]

    def left() -> bool:
        return uid in story.seen.deleted or leaves(story.seen.pods[uid])

    await story.plays_kubelet(pod)
    await until(lambda: left() or runs(story.seen.pods[uid]))
    acting = asyncio.create_task(acts(story, story.seen.pods[uid], deeds))
    try:
        await until(lambda: left() or acting.done())
        if acting.done():
            acting.result()
        await until(left)
    finally:
        acting.cancel()
    await story.plays_kubelet(story.seen.pods[uid])


async def acts(story: Story, pod: Manifest, deeds: Iterator[int]) -> None:
    """A trainer trains to its budget, and to the next one as long as it is told to; or something befalls its Pod."""
    leg, trial = ran(pod), story.index(pod)
    random, reached, budget = Random(f"{story.script.seed} {leg.name}"), leg.start, leg.budget
    while True:
        await asyncio.sleep(random.uniform(0, TRAINS))
        deed = story.script.deed(next(deeds))
        story.deeds[deed] += 1
        report = story.script.report(trial, budget)
        match deed:
            case "crashes":
                await story.ends(pod, code=1)
            case "evicted":  # while its report is on its way
                pushing = asyncio.create_task(story.push(pod, report))
                await asyncio.sleep(random.uniform(0, HEAD_START))
                await story.ends(pod, code=137, conditions=[{**EVICTED, "lastTransitionTime": now()}])
                pushing.cancel()
                await asyncio.gather(pushing, return_exceptions=True)  # nobody waits for its answer any more
            case "last words":
                story.sends(pod, report)
                await story.ends(pod, report=report)
            case "reports":
                steps = range(budget - reached)
                verdict = await story.push(
                    pod, *(story.script.report(trial, budget, before=before) for before in reversed(steps))
                )
                if "budget" in verdict:
                    reached, budget = budget, verdict["budget"]
                else:
                    await story.ends(pod, report=report)
        story.progresses()
        if deed != "reports" or "budget" not in verdict:
            return


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what a watch shows."""
    while not holds():  # noqa: ASYNC110  # it is looked at, not told
        await asyncio.sleep(LOOK)


SCENARIOS = (Scenario("at once", at_once, rounds=20),)

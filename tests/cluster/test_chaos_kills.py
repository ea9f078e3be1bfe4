"""Operators that die, again and again, and nothing is any different: the short form of `make chaos`."""

import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from random import Random

import halvard
from chaos.at_once import at_once
from chaos.checks import judged
from chaos.failpoints import AFTER_A_CONFLICT, CENSUS, EFFECTS, FAILPOINT, FAILPOINTS, PASSING
from chaos.kills import AT_RANDOM, at, at_random, kind
from chaos.operators import background
from chaos.report import Report
from chaos.script import Script
from chaos.story import Story
from halvard import kube
from halvard.kube import Manifest
from lab.control_plane import ControlPlane

SCRIPT = Script(1)
ANOTHER_PROCESS = {"check.py"}  # `halvard check`
VERBS = {"pages": "list", "replace": "update"}  # of `Kube`, as the API calls them
A_WRITE = "after (create|patch|delete) (trials|pods|studies).*"


async def test_all_that_operators_do_is_a_failpoint(control_plane: ControlPlane) -> None:
    async with Story.begin(control_plane, SCRIPT) as story:
        census = story.scene.directory / "census"
        story.operators.environment[CENSUS] = str(census)
        outcome = await story.run(story.operators.undisturbed())
        await story.found_by_another()
        passed = set(census.read_text().splitlines())
    assert passed == set(FAILPOINTS)
    assert outcome.condition == ("Complete", "TargetReached")
    assert story.deeds.keys() == {"reports", "last words", "evicted", "crashes"}
    resumed, results = sum(pod.start > 0 for pod in outcome.pods), sum(map(len, rungs(outcome.trials)))
    assert resumed > 0
    assert sum(len(found) > 1 for found in rungs(outcome.trials)) > resumed - story.deeds["evicted"]  # some went on hot
    assert results == story.deeds["reports"] + story.deeds["last words"]


def test_no_request_in_the_code_is_unknown() -> None:
    """Where the story gives no occasion for it, the census would not see it."""
    asked = set[str]()
    for module in Path(halvard.__file__).parent.glob("*.py"):
        if module.name not in ANOTHER_PROCESS:
            for verb, name in re.findall(r"\b_?kube\.(\w+)\(\s*([A-Z_]+)\b", module.read_text()):
                asked.add(f"{VERBS.get(verb, verb)} {getattr(kube, name).plural}")
    assert len(asked) > 10
    assert asked <= {effect.partition("/")[0] for effect in (*EFFECTS, *AFTER_A_CONFLICT)}


async def test_dying_where_it_says_where_it_leads_changes_nothing(control_plane: ControlPlane) -> None:
    def dying(story: Story, faults: Counter[str]) -> contextlib.AbstractAsyncContextManager[None]:
        return at(["before create endpointslices", "after update endpointslices"], Random(1), story, faults)

    found = await judged(control_plane, SCRIPT, dying)
    assert found.violations == ()
    assert found.faults[kind("before create endpointslices")] == 1
    assert found.faults[kind("after update endpointslices")] == 1


async def test_everything_at_once_and_operators_that_die(control_plane: ControlPlane) -> None:
    found = await at_once(control_plane, 0)
    assert found.violations == ()
    assert found.faults[AT_RANDOM] > 0


def rungs(trials: Iterable[Manifest]) -> list[list[Manifest]]:
    return [trial["status"].get("rungs", []) for trial in trials]


async def test_each_operator_dies_one_step_later_than_the_one_before(control_plane: ControlPlane) -> None:
    @contextlib.asynccontextmanager
    async def later_and_later(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        async def die() -> None:
            for step in range(1, 1000):
                operator = story.operators.start(**{FAILPOINT: ".*", PASSING: str(step)})
                try:
                    await operator.gone.wait()
                finally:
                    await operator.kill()
                faults["died"] += operator.killed

        async with background(die()):
            yield

    found = await judged(control_plane, SCRIPT, later_and_later)
    assert found.violations == ()
    assert found.faults["died"] > len(EFFECTS)


async def test_dying_at_every_write_changes_nothing(control_plane: ControlPlane) -> None:
    @contextlib.asynccontextmanager
    async def writing(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        async with story.operators.undisturbed(**{FAILPOINT: A_WRITE}):
            yield
        faults["started"] = story.operators.started

    found = await judged(control_plane, Script(1, trials=5), writing)
    assert found.violations == ()
    assert found.faults["started"] > 12


async def test_dying_at_random_changes_nothing(control_plane: ControlPlane) -> None:
    random = Random(1)

    def dying(story: Story, faults: Counter[str]) -> contextlib.AbstractAsyncContextManager[None]:
        return at_random(random, story, faults)

    found: Report = await judged(control_plane, SCRIPT, dying)
    assert found.violations == ()
    assert found.faults[AT_RANDOM] > 0

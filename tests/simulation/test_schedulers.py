"""Whole studies in virtual time with every scheduler: each ends, decides right, and says what it waits for."""

import heapq
import math
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.events import Fault
from halvard.trial import Trial
from simulation.world import CRASHED, EVICTED, World, chance, check_lives, check_promotions, check_stops, loss, study
from unit.reference import hyperband as paper

SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
    "brackets": {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3, "brackets": 3}},
    "hyperband": {"hyperband": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
    "none": {"none": {"budget": 4}},
    "grace": {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3, "grace": 3}},
    "median": {"median": {"budget": 6, "trials": 2}},
    "median at intervals": {"median": {"budget": 6, "trials": 3, "interval": 2, "grace": 3}},
    "patience": {"patience": {"budget": 6, "patience": 2, "minDelta": 0.05}},
}
every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def check(name: str, world: World) -> None:
    """What must hold at the end, the decisions of the scheduler included."""
    check_lives(world)
    if name == "hyperband":
        check_hyperband(world)
    elif world.study.spec.scheduler.interval:
        check_stops(world)
    else:
        asha = world.study.spec.scheduler.asha
        check_promotions(world.actions, grace=asha.grace if asha else 1)


def check_hyperband(world: World) -> None:
    """Every bracket trained what the paper's algorithm trains, given the same losses; what failed has none."""
    values, total, first = world.values(), len(world.stored), 0
    for number, (s, n) in enumerate(cycle(paper.brackets(1, 9, 3))):
        members = range(first, min(first + n, total))
        assert {number} >= {world.stored[index].spec.bracket for index in members}
        for budget, chosen in paper.bracket(paper.rungs(s, n, 9, 3), 3, members, lambda *leg: values.get(leg)):
            assert set(chosen) == {index for index in members if world.stored[index].spec.budget >= budget}
        first += n
        if first >= total:
            break


@every_scheduler
def test_a_study_runs_to_complete(name: str) -> None:
    world = World(study(scheduler=SCHEDULERS[name], limits={"trials": 30})).run()
    check(name, world)
    status = world.study.status
    assert (status.state, status.trials.total, status.trials.failed) == ("Complete", 30, 0)
    assert status.conditions[0].reason == "TrialsFinished"
    assert status.best is not None
    assert status.best.budget == world.progress.tuner.max_budget
    top = {index: value for (index, budget), value in world.values().items() if budget == status.best.budget}
    assert status.best.value == min(value for value in top.values() if value is not None)
    assert status.trials.complete == len(top)
    assert [(rung.completed >= rung.promoted, rung.running) for rung in status.rungs] == [(True, 0)] * len(status.rungs)
    assert sum(rung.completed for rung in status.rungs) == len(world.values())


@every_scheduler
def test_a_grid_that_is_exhausted_within_a_bracket_ends_the_study(name: str) -> None:
    grid = study(
        scheduler=SCHEDULERS[name],
        parameters=[{"name": "x", "float": {"min": 0.0, "max": 1.0, "step": 0.1}}],
        sampler={"grid": {}},
        limits={"trials": 99},
    )
    world = World(grid).run()
    check(name, world)
    assert world.study.status.conditions[0].reason == "SearchSpaceExhausted"
    assert world.study.status.highest_rung == world.progress.tuner.max_budget


@every_scheduler
def test_where_no_value_is_finite_the_study_fails_and_does_not_wait(name: str) -> None:
    world = World(study(scheduler=SCHEDULERS[name]), curve=lambda _trial, _step: math.nan).run()
    check(name, world)
    assert world.study.status.conditions[0].reason == "NoResult"


@pytest.mark.parametrize("trials", range(1, 24))
def test_hyperband_decides_its_last_bracket_wherever_the_limit_cuts_it(trials: int) -> None:
    world = World(study(scheduler=SCHEDULERS["hyperband"], limits={"trials": trials}, parallelism=4)).run()
    check("hyperband", world)
    assert world.study.status.state == "Complete"
    assert world.study.status.highest_rung == 9


def test_a_trial_that_waits_for_its_rung_to_fill_up_is_paused_and_says_so() -> None:
    world = World(study(scheduler=SCHEDULERS["hyperband"], limits={"trials": 9}, parallelism=1))
    world.turn([])
    while not world.stored[0].status.rungs:
        world.now, _, happen = heapq.heappop(world.timeline)
        world.turn(happen())
    waiting = world.stored[0].status
    assert waiting.state == "Paused"
    assert waiting.message == (
        f"paused: value {waiting.rungs[0].value:g} is place 1 of 1 at rung 1 of bracket 0 so far; "
        "the best 3 go on once every trial of the bracket has its result there"
    )


def test_with_none_no_trial_is_ever_paused() -> None:
    world = World(study(scheduler=SCHEDULERS["none"], limits={"trials": 10})).run()
    assert {trial.status.state for trial in world.stored.values()} == {"Complete"}
    assert {trial.done for trial in world.stored.values()} == {4}
    assert len(world.started) == 10


@every_scheduler
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32), loss_every=st.integers(2, 40), parallelism=st.integers(1, 5), trials=st.integers(1, 25)
)
def test_every_study_ends_through_faults_bad_values_and_operators_lost_at_any_action(
    *, name: str, seed: int, loss_every: int, parallelism: int, trials: int
) -> None:
    def fault(trial: int, attempt: int, step: int) -> Fault | None:
        draw = chance(seed, "fault", trial, attempt, step).random()
        return EVICTED if draw < 0.08 else CRASHED if draw < 0.1 else None

    def curve(trial: Trial, step: int) -> float:
        return math.nan if chance(seed, "nan", trial.index).random() < 0.2 else loss(trial, step)

    world = World(
        study(
            scheduler=SCHEDULERS[name],
            parallelism=parallelism,
            limits={"trials": trials, "failedTrials": 100},
        ),
        curve=curve,
        fault=fault,
        pace=lambda trial: 0.5 + chance(seed, "pace", trial.index).random(),
        lose_at=frozenset(range(loss_every, 4000, loss_every + 1)),
    ).run()
    check(name, world)
    assert len(world.stored) == trials
    reason = world.study.status.conditions[0].reason
    assert reason == ("TrialsFinished" if any(v is not None for v in world.values().values()) else "NoResult")


@every_scheduler
@settings(max_examples=40)
@given(lose_at=st.frozensets(st.integers(1, 200), max_size=12))
def test_an_operator_lost_at_any_action_decides_as_if_nothing_had_happened(name: str, lose_at: frozenset[int]) -> None:
    spec = {"scheduler": SCHEDULERS[name], "parallelism": 1, "limits": {"trials": 14}}
    undisturbed = World(study(**spec)).run()
    disturbed = World(study(**spec), lose_at=lose_at).run()
    assert disturbed.decisions() == undisturbed.decisions()
    assert disturbed.values() == undisturbed.values()
    assert disturbed.started == undisturbed.started

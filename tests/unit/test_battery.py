"""The cases that tuners of the field get wrong, each with the right answer, through the tuner as everyone uses it."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from halvard.decide import decide
from halvard.events import Reported
from halvard.study import Goal, StudySpec
from halvard.tuner import Tuner
from halvard_trainer.reports import Report
from simulation.world import World, study
from unit.streams import VALUES

NAN, INF = math.nan, math.inf
ETA = 3
RUNGS = {"asha": {"minBudget": 1, "maxBudget": 3, "reductionFactor": ETA}}


def study_spec(goal: Goal = "minimize") -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": goal},
            "parameters": [{"name": "x", "float": {"min": 0.0, "max": 1.0}}],
            "scheduler": RUNGS,
            "limits": {"trials": 10_000},
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def stream(values: Iterable[float | None], goal: Goal = "minimize") -> list[list[int]]:
    """The trials promoted right after each of these results at the lower of two rungs."""
    tuner = Tuner(study_spec(goal))
    steps = []
    for value in values:
        new = tuner.ask()
        assert new is not None
        assert new.new
        tuner.tell(new.index, 1, value)
        due = iter(lambda: tuner.ask(new_trials=False), None)
        steps.append([leg.index for leg in due])
    return steps


def flat(steps: list[list[int]]) -> list[int]:
    return [index for step in steps for index in step]


def best_third(values: Sequence[float]) -> set[int]:
    ranked = sorted((value, index) for index, value in enumerate(values) if math.isfinite(value))
    return {index for _, index in ranked[: len(values) // ETA]}


def test_of_ties_exactly_a_third_go_on_the_first_trials_first() -> None:
    steps = stream([0.5] * 300)
    for n in range(1, 301):
        assert list(range(n // ETA)) == flat(steps[:n])


def test_zero_and_minus_zero_are_a_tie() -> None:
    assert flat(stream([0.0, -0.0, 0.0])) == [0]


@pytest.mark.parametrize("levels", [2, 3, 10])
def test_with_few_levels_the_best_third_goes_on_and_hardly_more(levels: int) -> None:
    values = [float(v) for v in np.random.default_rng(1).integers(levels, size=300)]
    promoted = flat(stream(values))
    assert best_third(values) <= set(promoted)
    assert 100 <= len(promoted) <= 120


def test_of_independent_values_the_best_third_goes_on_and_hardly_more() -> None:
    values = np.random.default_rng(2).normal(size=400).tolist()
    promoted = flat(stream(values))
    assert best_third(values) <= set(promoted)
    assert len(promoted) <= 133 + 20  # the paper expects about sqrt(n) promotions too many


def test_in_an_improving_stream_every_newcomer_is_the_best_and_goes_on() -> None:
    assert [[], [], *([i] for i in range(2, 300))] == stream([-float(i) for i in range(300)])


def test_in_a_worsening_stream_exactly_a_third_goes_on() -> None:
    steps = stream([float(i) for i in range(300)])
    assert steps == [[n // ETA - 1] if n % ETA == 0 else [] for n in range(1, 301)]


@pytest.mark.parametrize("bad", [NAN, INF, -INF, None])
def test_one_value_that_is_not_finite_after_fifty_good_ones_does_not_go_on(bad: float | None) -> None:
    good = np.random.default_rng(3).normal(size=50).tolist()
    assert 50 not in flat(stream([*good, bad, *good]))


@pytest.mark.parametrize("bad", [NAN, INF, -INF, None])
@pytest.mark.parametrize("share", [0.25, 0.75])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_values_that_are_not_finite_never_go_on_whatever_their_share_and_stall_nothing(
    bad: float | None, share: float, goal: Goal
) -> None:
    rng = np.random.default_rng(4)
    values = [bad if rng.random() < share else float(rng.normal()) for _ in range(400)]
    promoted = flat(stream(values, goal))
    finite = {index for index, value in enumerate(values) if value is not None and math.isfinite(value)}
    assert set(promoted) <= finite
    assert len(promoted) >= min(len(finite), 400 // ETA)


def test_what_is_not_finite_counts_as_a_result() -> None:
    assert stream([NAN, NAN, 0.7]) == [[], [], [2]]
    assert stream([0.7, NAN, NAN]) == [[], [], [0]]


def test_where_nothing_is_finite_nothing_goes_on() -> None:
    assert flat(stream([NAN] * 100)) == []


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_an_infinite_value_of_either_sign_is_never_the_best_of_a_study(share: float) -> None:
    rng = np.random.default_rng(6)
    bad = {index: float(rng.choice([INF, -INF, NAN])) for index in range(40) if rng.random() < share}
    world = World(study(limits={"trials": 40}), curve=lambda trial, step: bad.get(trial.index, trial.index + 1 / step))
    best = world.run().study.status.best
    assert best is not None
    assert best.trial == f"s-{min(set(range(40)) - set(bad)):04d}"


@pytest.mark.parametrize("kind", VALUES)
def test_minimising_and_maximising_are_exact_mirrors(kind: str) -> None:
    rng = np.random.default_rng(5)
    values = [VALUES[kind](rng, step) for step in range(400)]
    assert stream(values) == stream([-value for value in values], "maximize")


# --- a value counts for the rung it was measured for (decisions/0007)


def trials_at_their_first_rung() -> World:
    """Three trials that train until 1; the best of three goes on until 3."""
    world = World(study(parallelism=3, limits={"trials": 3}))
    world.turn([])
    return world


def report(world: World, trial: int, step: int, value: float) -> None:
    decide(world.progress, [Reported(trial, 1, world.now, Report(step, {"loss": value}))], world.now)


def rungs(world: World) -> list[list[tuple[int, float | None, int]]]:
    """(budget, value, step) of the results of each trial."""
    trials = world.progress.trials
    return [[(r.budget, r.value, r.step) for r in trials[index].status.rungs] for index in sorted(trials)]


def test_a_first_report_late_completes_the_assigned_rung_alone_and_what_follows_no_rung_below() -> None:
    world = trials_at_their_first_rung()
    report(world, 0, 10, 0.5)
    for step in (11, 12, 13):
        report(world, 0, step, 0.1)
    assert rungs(world) == [[(1, 0.5, 10)], [], []]


def test_a_report_that_skips_a_budget_completes_the_rung_it_was_trained_for_and_no_other() -> None:
    world = trials_at_their_first_rung()
    for trial in range(3):
        report(world, trial, 5, (5 - trial) / 10)  # 5 is beyond 1, and beyond 3, the rung above
    assert world.progress.trials[2].spec.budget == 3
    assert rungs(world) == [[(1, 0.5, 5)], [(1, 0.4, 5)], [(1, 0.3, 5)]]
    report(world, 2, 5, 0.9)  # told again: no news
    assert rungs(world)[2] == [(1, 0.3, 5)]
    report(world, 2, 20, 0.2)
    assert rungs(world)[2] == [(1, 0.3, 5), (3, 0.2, 20)]

"""Replaying a study's records: the same decisions again, or where they differ."""

import math
from typing import Any

import numpy as np
import pytest

from halvard import lifecycle
from halvard.replay import Decision, IncompleteError, Replay, Withdrawal, history, replay
from halvard.simulate.conditions import Conditions
from halvard.simulate.table import Table
from halvard.simulate.world import simulate
from halvard.study import StudySpec
from halvard.trial import Trial
from halvard.tuner import Tuner
from unit.simulate.conftest import arrays, make_study

SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": {"asha": {"maxBudget": 9}},
    "brackets": {"asha": {"maxBudget": 9, "brackets": 3, "reductionFactor": 2}},
    "grace": {"asha": {"maxBudget": 9, "grace": 3}},
    "control": {"asha": {"maxBudget": 9, "control": 0.25}},
    "hyperband": {"hyperband": {"maxBudget": 9}},
    "adaptive": {"adaptive": {"maxBudget": 9}},
    "patience": {"patience": {"budget": 9, "patience": 2, "minDelta": 0.03}},
    "median": {"median": {"budget": 9}},
    "none": {"none": {"budget": 3}},
}
SAMPLERS = ["random", "sobol", "grid", "tpe", "bohb", "gp", "auto"]
GRID = [{"name": "lr", "choice": list(range(8))}, {"name": "width", "int": {"min": 1, "max": 6}}]


def simulated(scheduler: str = "asha", sampler: str = "random", **spec: Any) -> tuple[StudySpec, list[Trial]]:
    """A study that ran with four workers, some of which were lost, and its records."""
    axes = {"parameters": GRID} if sampler == "grid" else {}
    study = make_study(scheduler=SCHEDULERS[scheduler], sampler={sampler: {}}, **axes, **spec)
    table = Table.from_arrays(arrays())
    simulation = simulate(study, table, Conditions(workers=4, dropped=0.1, stragglers=0.5))
    return study.spec, [one.trial for one in simulation.trials]


@pytest.fixture(scope="module")
def records() -> tuple[StudySpec, list[Trial]]:
    return simulated("control")


def result_at(trials: list[Trial], budget: int) -> Trial:
    """The best of those that went no further than this budget."""
    stayed = [trial for trial in trials if trial.done == trial.spec.budget == budget]
    return min(stayed, key=lambda trial: trial.status.rungs[-1].value or 0.0)


def changed(trials: list[Trial], index: int, place: int, **fields: Any) -> list[Trial]:
    """The records with one result of one trial changed."""
    trial = trials[index]
    results = list(trial.status.rungs)
    results[place] = results[place].model_copy(update=fields)
    status = trial.status.model_copy(update={"rungs": tuple(results)})
    return [*trials[:index], trial.model_copy(update={"status": status}), *trials[index + 1 :]]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_decides_the_same_again(scheduler: str) -> None:
    spec, trials = simulated(scheduler)
    found = replay(spec, trials)
    decisions = [each for each in history(trials) if isinstance(each, Decision)]
    assert found == Replay(len(decisions), None)
    assert len(decisions) >= len(trials) == 40


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_the_same_again(sampler: str) -> None:
    spec, trials = simulated("asha", sampler)
    assert replay(spec, trials[::-1]).difference is None


def by_hand(steps: int) -> tuple[StudySpec, list[Trial]]:
    """A study after so many steps, of which some begin a leg, some bring a result, and some a failure."""
    spec = make_study().spec
    tuner, rng, stored, running = Tuner(spec), np.random.default_rng(0), dict[int, Trial](), list[int]()
    for _ in range(steps):
        if len(running) < 4 and (leg := tuner.ask()):
            known = stored.get(leg.index)
            decided = leg.trial_spec()
            stored[leg.index] = lifecycle.promoted(known, decided) if known else lifecycle.new_trial("s", decided)
            running.append(leg.index)
        elif running:
            index = running.pop(int(rng.integers(len(running))))
            if rng.random() < 0.2:
                stored[index] = lifecycle.ended(stored[index], "Failed", "exit code 1", order=tuner.withdraw(index))
                continue
            value = float(rng.choice([math.nan, rng.random()], p=[0.1, 0.9]))
            order = tuner.tell(index, stored[index].spec.budget, value).order
            stored[index] = lifecycle.completed_rung(stored[index], value, 0.0, 0.0, at=0.0, order=order)
    return spec, list(stored.values())


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 61, 90, 200])
def test_a_study_is_replayed_as_far_as_it_is_with_its_failures(steps: int) -> None:
    spec, trials = by_hand(steps)
    happened = history(trials)
    assert [each.order for each in happened] == list(range(1, len(happened) + 1))
    assert replay(spec, trials) == Replay(sum(isinstance(each, Decision) for each in happened), None)
    assert any(isinstance(each, Withdrawal) for each in happened) or steps < 30


def test_a_changed_value_shows_at_the_first_decision_it_changes(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    stayed = result_at(trials, 1)
    tampered = changed(trials, stayed.index, 0, value=-1.0)
    found = replay(spec, tampered)
    assert found.difference
    assert found.difference.order > stayed.status.rungs[0].order
    assert 0 < found.decisions < sum(isinstance(each, Decision) for each in history(trials))
    assert found.difference.recorded != found.difference.now


def test_the_difference_says_what_was_recorded_and_what_comes_out_now() -> None:
    spec, trials = by_hand(7)
    other = trials[0].model_copy(update={"spec": trials[0].spec.model_copy(update={"parameters": {"lr": 0.5}})})
    found = replay(spec, [other, *trials[1:]])
    assert found.decisions == 0
    assert found.difference
    assert found.difference.order == 1
    assert found.difference.recorded == "trial 0 is to train until 1: new trial"
    now = found.difference.now
    assert now.startswith(
        "trial 0 is to train until 1: new trial, with order 1, bracket 0, control False, parameters {"
    )


def test_swapped_orders_show(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    first, second = trials[3].status.rungs[0].order, trials[12].status.rungs[0].order
    swapped = changed(changed(trials, 3, 0, order=second), 12, 0, order=first)
    found = replay(spec, swapped)
    assert found.difference
    assert found.difference.order <= second


def test_a_control_that_was_recorded_as_due_shows(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    index, place = next(
        (trial.index, place) for trial in trials for place, result in enumerate(trial.status.rungs) if result.control
    )
    decided = trials[index].status.rungs[place].decided
    found = replay(spec, changed(trials, index, place, control=False))
    assert found.difference
    assert found.difference.order == decided
    assert "control True" in found.difference.now


def test_a_stop_that_patience_did_not_decide_shows() -> None:
    spec, trials = simulated("patience")
    stopped = next(trial for trial in trials if trial.status.message.startswith("stopped: "))
    status = stopped.status.model_copy(update={"message": "stopped: for another reason"})
    others = [trial for trial in trials if trial is not stopped]
    found = replay(spec, [*others, stopped.model_copy(update={"status": status})])
    assert found.difference
    assert (found.difference.order, found.difference.now) == (stopped.status.order, stopped.status.message)


def test_a_missing_trial_is_said(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    missing = trials[5].status.rungs[0].decided
    with pytest.raises(IncompleteError, match=f"nothing has the order {missing}: a trial's record is missing, or not"):
        replay(spec, [*trials[:5], *trials[6:]])


def test_two_things_in_the_same_place_are_said(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    order = trials[0].status.rungs[0].order
    with pytest.raises(IncompleteError, match=f"both trial .* have the order {order}"):
        replay(spec, changed(trials, 1, 0, order=order))


def test_records_without_an_order_are_refused(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    with pytest.raises(IncompleteError, match=r"trials without spec\.order: they were made before Halvard kept"):
        replay(spec, changed(trials, 0, 0, order=0))


def test_a_limit_that_was_lowered_since_changes_nothing(records: tuple[StudySpec, list[Trial]]) -> None:
    spec, trials = records
    fewer = spec.model_copy(update={"limits": spec.limits.model_copy(update={"trials": 3})})
    assert replay(fewer, trials).difference is None

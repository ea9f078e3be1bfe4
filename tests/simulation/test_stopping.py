"""Whole studies in virtual time whose trials are stopped at reports: who leaves, what it frees, and what is stored."""

import heapq
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.decide import decide
from halvard.events import Fault, Reported
from halvard.plan import CreateTrial, SaveStatus, StopLeg
from halvard.status import time_spent
from halvard.trial import Trial
from halvard_trainer.reports import Report
from simulation.world import EPOCH, EVICTED, World, chance, check_lives, check_stops, study

MEDIAN = {"median": {"budget": 6, "trials": 1}}
PATIENCE = {"patience": {"budget": 20, "patience": 2}}


def plateau(trial: Trial, step: int) -> float:
    """Better with every step until one that depends on x, then level."""
    x = trial.spec.parameters["x"]
    assert isinstance(x, float)
    return x + 1.0 / min(step, 1 + int(6 * x))


def by_index(trial: Trial, _step: int) -> float:
    """The first trial is the best, each one after it worse."""
    return float(trial.index)


def advance(world: World, steps: int) -> None:
    """Turns the crank for so many things that happen."""
    for _ in range(steps):
        world.now, _, happen = heapq.heappop(world.timeline)
        world.turn(happen())


def running(world: World) -> World:
    """The same world once its first trials run."""
    world.turn([])
    while not all(attempt.running for attempt in world.attempts.values()):
        advance(world, 1)
    return world


def report(world: World, trial: int, step: int, attempt: int = 1, **metrics: float) -> list[Any]:
    """The actions that follow from a report."""
    plan = decide(world.progress, [Reported(trial, attempt, world.now, Report(step, metrics))], world.now)
    return [*plan.actions]


# --- one report


def test_a_report_is_stored_at_once_with_what_follows_from_it_and_a_slot_that_is_free_is_used_at_once() -> None:
    world = running(World(study(scheduler=MEDIAN, parallelism=2)))
    [saved] = report(world, 0, 1, loss=0.5)
    assert isinstance(saved, SaveStatus)
    assert [(p.step, p.value) for p in saved.trial.status.curve] == [(1, 0.5)]
    assert saved.trial.status.state == "Running"
    stopped, created, *_ = report(world, 1, 1, loss=0.6)
    assert isinstance(stopped, SaveStatus)
    assert isinstance(created, CreateTrial)
    status = stopped.trial.status
    assert (status.state, status.curve[-1].value, status.order) == ("Stopped", 0.6, 3)
    assert status.message == (
        "stopped: the best value by step 1, 0.6, is worse than 0.5, "
        "the median of the averages of 1 other trials up to there"
    )
    verdict = world.progress.verdict(1, 1, 1)
    assert verdict is not None
    assert verdict.stop == status.message


def test_who_hears_nothing_is_made_to_leave_when_its_grace_is_over() -> None:
    world = running(World(study(scheduler=MEDIAN, parallelism=2)))
    report(world, 0, 1, loss=0.5)
    report(world, 1, 1, loss=0.6)
    assert not [a for a in decide(world.progress, [], world.now + 29).actions if isinstance(a, StopLeg)]
    stops = [a for a in decide(world.progress, [], world.now + 30).actions if isinstance(a, StopLeg)]
    assert [(stop.trial.index, stop.attempt) for stop in stops] == [(1, 1)]


def test_reports_that_decide_nothing_are_not_stored_at_once() -> None:
    for scheduler in ({"asha": {"minBudget": 4, "maxBudget": 12}}, {"median": {"budget": 6, "interval": 2}}):
        world = running(World(study(scheduler=scheduler)))
        assert report(world, 0, 1, loss=0.5) == []


@pytest.mark.parametrize("scheduler", [MEDIAN, PATIENCE])
def test_a_report_without_the_objective_decides_nothing(scheduler: Any) -> None:
    world = running(World(study(scheduler=scheduler, parallelism=2)))
    report(world, 0, 3, loss=0.5)
    assert report(world, 1, 3, accuracy=0.1) == []
    assert world.progress.trials[1].status.curve == ()


def test_a_step_that_was_known_from_an_earlier_attempt_is_not_decided_on_again() -> None:
    world = running(World(study(scheduler=PATIENCE, parallelism=1), resumable=False))
    for step, value in enumerate([0.9, 0.8, 0.7], 1):
        report(world, 0, step, loss=value)
    world.turn(world.end(0, 1, EVICTED))
    while (0, 2) not in world.attempts or not world.attempts[0, 2].running:
        if world.wake is not None and (not world.timeline or world.wake < world.timeline[0][0]):
            world.now = world.wake
            world.turn([])
        else:
            advance(world, 1)
    for step in (1, 2, 3):
        assert report(world, 0, step, attempt=2, loss=math.nan) == []
    assert report(world, 0, 4, attempt=2, loss=0.7) != []
    curve = world.progress.trials[0].status.curve
    assert [(p.step, p.value) for p in curve] == [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.7)]
    [stopped, *_] = report(world, 0, 5, attempt=2, loss=0.7)
    assert stopped.trial.status.message == (
        "stopped: no improvement on 0.7, the value at step 3, by step 5; patience is 2"
    )


@pytest.mark.parametrize("budget", [200, 150])
def test_the_curve_keeps_all_that_was_decided_on_and_the_result(budget: int) -> None:
    world = running(World(study(scheduler={"median": {"budget": budget}}, parallelism=1)))
    for step in range(1, budget + 1):
        report(world, 0, step, loss=1 / step)
    trial = world.progress.trials[0]
    assert [p.step for p in trial.status.curve] == [*range(1, budget + 1)]
    assert trial.status.state == "Complete"


# --- whole studies


def test_time_of_a_trial_that_was_stopped_is_not_lost_to_faults() -> None:
    world = World(study(scheduler=MEDIAN, parallelism=1, limits={"trials": 3}), curve=by_index).run()
    assert [world.stored[i].status.state for i in range(3)] == ["Complete", "Stopped", "Stopped"]
    spent = [(s.outcome, s.seconds) for s in time_spent(world.stored[1])]
    assert spent == [("paused", 1.0)]
    assert world.study.status.gpu_hours is not None
    assert world.study.status.gpu_hours.lost == 0
    assert world.study.status.gpu_hours.paused == pytest.approx(2 / 3600, abs=1e-4)


def test_a_study_whose_trials_were_all_stopped_is_complete() -> None:
    world = World(study(scheduler=PATIENCE, limits={"trials": 5}), curve=plateau).run()
    assert {trial.status.state for trial in world.stored.values()} == {"Stopped"}
    [condition] = world.study.status.conditions
    assert (condition.type, condition.reason) == ("Complete", "TrialsFinished")
    assert condition.message == "all 5 trials are finished or were stopped"


@pytest.mark.parametrize("scheduler", [MEDIAN, PATIENCE])
def test_a_study_whose_trials_all_diverged_has_no_result(scheduler: Any) -> None:
    world = World(study(scheduler=scheduler, limits={"trials": 5}), curve=lambda _trial, _step: math.nan).run()
    assert {trial.status.state for trial in world.stored.values()} == {"Stopped"}
    assert [(c.type, c.reason) for c in world.study.status.conditions] == [("Failed", "NoResult")]


def test_the_end_of_the_study_stops_what_trains_as_ever() -> None:
    limits = {"trials": 50, "duration": "4s"}
    world = World(study(scheduler={"median": {"budget": 6}}, parallelism=2, limits=limits)).run()
    assert {trial.status.message for trial in world.stored.values()} == {
        "the study ended: limits.duration of 4s is over"
    }
    assert all(trial.status.curve for trial in world.stored.values())


def test_a_stopped_attempt_costs_no_more_than_the_report_at_which_it_was_stopped() -> None:
    world = World(study(scheduler=MEDIAN, parallelism=1, limits={"trials": 9}), curve=by_index).run()
    check_stops(world)
    assert [len(world.stored[i].status.curve) for i in range(9)] == [6] + [1] * 8
    assert world.now - EPOCH < 9 * 2 + 6  # 1 s a step, and a moment to begin and to leave


stopping = st.sampled_from(
    [
        MEDIAN,
        PATIENCE,
        {"median": {"budget": 9, "trials": 2, "interval": 2, "grace": 3}},
        {"patience": {"budget": 9, "patience": 3, "minDelta": 0.1, "interval": 2, "grace": 5}},
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    scheduler=stopping,
    seed=st.integers(0, 2**32),
    loss_every=st.integers(2, 40),
    parallelism=st.integers(1, 5),
    resumable=st.booleans(),
)
def test_every_report_is_decided_right_through_faults_and_operators_lost_at_any_action(
    *, scheduler: Any, seed: int, loss_every: int, parallelism: int, resumable: bool
) -> None:
    def fault(trial: int, attempt: int, step: int) -> Fault | None:
        return EVICTED if chance(seed, "fault", trial, attempt, step).random() < 0.08 else None

    def curve(trial: Trial, step: int) -> float:
        draw = chance(seed, "curve", trial.index, step).random()
        return math.nan if draw < 0.03 else plateau(trial, step) + 0.1 * draw

    world = World(
        study(scheduler=scheduler, parallelism=parallelism, limits={"trials": 12, "retries": 1000}),
        curve=curve,
        fault=fault,
        pace=lambda trial: 0.5 + chance(seed, "pace", trial.index).random(),
        lose_at=frozenset(range(loss_every, 4000, loss_every + 1)),
        resumable=resumable,
    ).run()
    check_lives(world)
    check_stops(world)
    assert len(world.stored) == 12
    assert {trial.status.state for trial in world.stored.values()} <= {"Complete", "Stopped"}


@settings(max_examples=60, deadline=None)
@given(scheduler=stopping, lose_at=st.frozensets(st.integers(1, 200), max_size=12))
def test_an_operator_lost_at_any_action_stops_the_same_trials_at_the_same_reports(
    scheduler: Any, lose_at: frozenset[int]
) -> None:
    spec = {"scheduler": scheduler, "parallelism": 1, "limits": {"trials": 10}}
    undisturbed = World(study(**spec), curve=plateau).run()
    disturbed = World(study(**spec), curve=plateau, lose_at=lose_at).run()
    assert [told(trial) for trial in disturbed.stored.values()] == [
        told(trial) for trial in undisturbed.stored.values()
    ]
    assert disturbed.decisions() == undisturbed.decisions()
    assert any(trial.status.state == "Stopped" for trial in disturbed.stored.values())


def told(trial: Trial) -> Any:
    return trial.spec, trial.status.state, trial.status.message, trial.status.curve, trial.status.order

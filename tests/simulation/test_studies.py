"""Whole studies in virtual time: what must hold for every history of reports, faults and crashes."""

import heapq
import math
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.decide import decide
from halvard.events import Fault, Reported, Started
from halvard.faults import VANISHED
from halvard.plan import Announce, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.progress import Progress
from halvard.trial import Trial
from halvard_trainer.reports import Report
from simulation.world import CRASHED, EVICTED, LEFT, World, chance, check_invariants, loss, study


def test_a_study_runs_to_complete_and_its_best_trial_has_the_full_budget() -> None:
    world = World(study(limits={"trials": 30})).run()
    check_invariants(world)
    status = world.study.status
    assert (status.state, status.trials.total, status.highest_rung) == ("Complete", 30, 9)
    assert status.best is not None
    assert status.best.budget == 9
    best = min((v, i) for (i, b), v in world.values().items() if b == 9 and v is not None)
    assert (status.best.value, status.best.trial) == (best[0], f"s-{best[1]:04d}")
    assert [(r.budget, r.running) for r in status.rungs] == [(1, 0), (3, 0), (9, 0)]


def test_a_trial_promoted_at_its_report_goes_on_in_its_own_attempt() -> None:
    world = World(study(parallelism=1, limits={"trials": 3})).run()
    hot = [a.trial.index for a in world.actions if isinstance(a, SaveSpec) and a.hot]
    for index in hot:
        assert [n for i, n in world.started if i == index][-1] == world.stored[index].attempt
    assert len(world.started) + len(hot) == len(world.decisions())


def test_a_paused_trial_resumes_from_its_checkpoint_in_a_new_attempt() -> None:
    world = World(study(limits={"trials": 30})).run()
    resumed = [a for a in world.actions if isinstance(a, StartLeg) and a.resume]
    assert resumed
    assert all(leg.start == world.stored[leg.trial.index].status.rungs[0].step or leg.start >= 1 for leg in resumed)
    assert all(leg.trial.attempt > leg.resume.attempt for leg in resumed if leg.resume)


def test_a_promoted_trial_that_waits_for_its_pod_says_so_also_after_a_restart() -> None:
    world = World(study(parallelism=1, limits={"trials": 4}), curve=lambda trial, _step: abs(trial.index - 1.5))
    world.turn([])
    while not any(isinstance(a, SaveSpec) and not a.hot for a in world.actions):
        world.now, _, happen = heapq.heappop(world.timeline)
        world.turn(happen())
    promoted = next(a.trial.index for a in world.actions if isinstance(a, SaveSpec))
    assert world.stored[promoted].status.state == "Paused"
    assert world.study.status.trials.pending == 1
    world.attempts.clear()
    world.timeline.clear()
    world.recover()
    assert world.study.status.trials.pending == 1
    assert world.stored[promoted].status.state == "Paused"
    world.now += 6
    world.turn([])
    assert world.stored[promoted].status.state == "Pending"


def test_without_a_place_for_checkpoints_every_leg_starts_over() -> None:
    world = World(study(limits={"trials": 30}), resumable=False).run()
    check_invariants(world)
    assert all(a.start == 0 for a in world.actions if isinstance(a, StartLeg))
    assert world.study.status.state == "Complete"


def test_infrastructure_faults_change_no_decision_when_reports_keep_their_order() -> None:
    calm = World(study(parallelism=1, limits={"trials": 20})).run()
    rough = World(
        study(parallelism=1, limits={"trials": 20}),
        fault=lambda trial, attempt, step: EVICTED if chance(1, trial, attempt, step).random() < 0.3 else None,
    ).run()
    assert rough.decisions() == calm.decisions()
    assert rough.values() == calm.values()
    assert rough.study.status.trials.failed == 0
    assert sum(t.status.faults for t in rough.stored.values()) > 0


def test_a_counted_fault_fails_the_trial_and_nothing_stalls() -> None:
    world = World(study(limits={"trials": 12}), fault=lambda trial, _a, _s: CRASHED if trial % 4 == 0 else None).run()
    check_invariants(world)
    assert {i for i, t in world.stored.items() if t.status.state == "Failed"} == {0, 4, 8}
    assert "NonZeroExit" in world.stored[4].status.message
    assert world.study.status.state == "Complete"


def test_a_promoted_program_that_cannot_go_on_fails_and_does_not_start_over_for_ever() -> None:
    world = World(
        study(parallelism=1, limits={"trials": 3}),
        fault=lambda _trial, _attempt, step: LEFT if step == 2 else None,  # its budget is its own
        resumable=False,
    ).run()
    check_invariants(world)
    assert [t.status.state for t in world.stored.values()].count("Failed") == 1
    assert len(world.started) <= 5


def test_too_many_failed_trials_fail_the_study_and_stop_what_runs() -> None:
    world = World(
        study(limits={"trials": 50, "failedTrials": 2}), fault=lambda trial, _a, _s: CRASHED if trial < 9 else None
    ).run()
    assert world.study.status.state == "Failed"
    assert world.study.status.conditions[0].reason == "TooManyFailedTrials"
    assert world.study.status.trials.failed == 3
    assert len(world.stored) < 50


def test_a_study_without_any_finite_value_fails_and_says_so() -> None:
    world = World(study(), curve=lambda _t, _s: math.nan).run()
    assert world.study.status.conditions[0].reason == "NoResult"
    assert world.study.status.best is None


def test_values_that_are_not_finite_are_never_promoted_and_never_best() -> None:
    def curve(trial: Trial, step: int) -> float:
        return [math.nan, math.inf, -math.inf][trial.index % 3] if trial.index % 2 else loss(trial, step)

    world = World(study(limits={"trials": 30}), curve=curve).run()
    check_invariants(world)
    assert world.study.status.best is not None
    assert all(t.spec.budget == 1 for i, t in world.stored.items() if i % 2)


def test_a_step_reported_before_or_a_lower_one_changes_nothing_and_is_counted() -> None:
    world = World(study(parallelism=1, scheduler={"asha": {"minBudget": 3, "maxBudget": 9}}))
    world.turn([])
    reports = [Reported(0, 1, world.now, Report(step, {"loss": float(step)})) for step in (2, 2, 1)]
    plan = decide(world.progress, reports, world.now)
    assert plan.repeated == 2
    assert [point.value for point in world.progress.trials[0].status.curve] == [2.0]


def test_a_target_ends_the_study_and_stops_the_others() -> None:
    world = World(study(objective={"metric": "loss", "goal": "minimize", "target": 0.4}, limits={"trials": 60})).run()
    assert world.study.status.conditions[0].reason == "TargetReached"
    assert world.study.status.trials.total < 60
    assert world.study.status.best is not None
    assert world.study.status.best.value <= 0.4


def test_the_duration_ends_a_study_that_would_go_on() -> None:
    world = World(study(limits={"duration": "30s"})).run()
    assert world.study.status.conditions[0].reason == "DurationReached"
    assert any(isinstance(a, StopLeg) for a in world.actions)


@pytest.mark.parametrize("seed", range(30))
def test_gpu_hours_that_were_used_up_still_are_after_a_restart(seed: int) -> None:
    rng = random.Random(seed)
    going = study(parallelism=8, limits={"gpuHours": rng.uniform(0.05, 0.3)}, seed=seed)
    paces = defaultdict[int, float](lambda: rng.uniform(0.5, 3.0))
    world = World(going, pace=lambda trial: paces[trial.index]).run()
    folded = Progress(going, world.stored.values())  # of a Study whose end was not stored
    decide(folded, [], world.now)
    assert world.progress.outcome is not None
    assert folded.outcome == world.progress.outcome


def test_gpu_hours_end_a_study_that_would_go_on() -> None:
    world = World(study(limits={"gpuHours": 0.01})).run()
    assert world.study.status.conditions[0].reason == "GPUHoursReached"
    assert world.study.status.gpu_hours.total == pytest.approx(0.01, rel=0.1)


def test_a_grid_ends_when_every_combination_was_tried() -> None:
    grid = study(
        parameters=[{"name": "x", "float": {"min": 0.0, "max": 1.0, "step": 0.25}}],
        sampler={"grid": {}},
        limits={"trials": 99},
    )
    world = World(grid).run()
    assert world.study.status.conditions[0].reason == "SearchSpaceExhausted"
    assert sorted(t.spec.parameters["x"] for t in world.stored.values()) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_suspension_stops_everything_and_resuming_loses_nothing() -> None:
    world = World(study(limits={"trials": 12}))
    world.turn([])
    world.progress.update_study(
        world.study.model_copy(update={"spec": world.study.spec.model_copy(update={"suspend": True})})
    )
    world.turn([])
    assert sum(isinstance(a, StopLeg) for a in world.actions) == 3
    while world.attempts:
        world.now, _, happen = heapq.heappop(world.timeline)
        world.turn(happen())
    suspended = world.study.status
    assert suspended.state == "Suspended"
    assert all(t.status.state == "Pending" and t.status.faults == 0 for t in world.stored.values())
    world.progress.update_study(
        world.study.model_copy(update={"spec": world.study.spec.model_copy(update={"suspend": False})})
    )
    finished = world.run().study.status
    check_invariants(world)
    assert finished.state == "Complete"
    assert [c.status for c in world.study.status.conditions if c.type == "Suspended"] == ["False"]


def test_lowering_parallelism_stops_the_lowest_rungs_first_and_counts_nothing() -> None:
    world = World(study(limits={"trials": 12}))
    world.turn([])
    lower = world.study.spec.model_copy(update={"parallelism": 1})
    world.progress.update_study(world.study.model_copy(update={"spec": lower}))
    world.turn([])
    assert [a.trial.index for a in world.actions if isinstance(a, StopLeg)] == [1, 2]
    world.run()
    check_invariants(world)
    assert world.study.status.trials.failed == 0


def test_an_attempt_that_ignores_its_verdict_is_stopped_after_its_grace() -> None:
    world = World(study(limits={"trials": 1}, scheduler={"asha": {"minBudget": 1, "maxBudget": 3}}))
    world.answer = lambda: None  # type: ignore[method-assign]  # the trainer never reads verdicts
    world.run()
    stops = [a for a in world.actions if isinstance(a, StopLeg)]
    assert [(a.trial.index, a.attempt, a.reason) for a in stops] == [(0, 1, "its attempt is over")]


def test_a_leg_that_was_over_quickly_needs_no_write_for_its_start() -> None:
    world = World(
        study(parallelism=1, limits={"trials": 1}, scheduler={"asha": {"minBudget": 1, "maxBudget": 3}})
    ).run()
    assert sum(isinstance(a, SaveStatus) for a in world.actions) == 1


def test_refused_legs_wait_and_one_is_tried_again_until_there_is_room() -> None:
    world = World(study(parallelism=4, limits={"trials": 8}))
    room, refusals = 2, []
    start = world.start

    def quota(leg: StartLeg, trial: Trial) -> None:
        if len(world.attempts) >= room:
            refusals.append(trial.index)
            world.progress.refused(trial.index, "QuotaExhausted", "exceeded quota: gpus", world.now)
        else:
            start(leg, trial)

    world.start = quota  # type: ignore[method-assign]
    world.turn([])
    degraded = [c for c in world.study.status.conditions if c.type == "Degraded"]
    assert [(c.status, c.reason, c.message) for c in degraded] == [("True", "QuotaExhausted", "exceeded quota: gpus")]
    world.run()
    check_invariants(world)
    assert world.study.status.state == "Complete"
    assert world.study.status.trials.failed == 0
    assert refusals


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32), loss_every=st.integers(2, 40), parallelism=st.integers(1, 5), resumable=st.booleans()
)
def test_every_invariant_holds_through_faults_and_operators_lost_at_any_action(
    *, seed: int, loss_every: int, parallelism: int, resumable: bool
) -> None:
    def fault(trial: int, attempt: int, step: int) -> Fault | None:
        draw = chance(seed, "fault", trial, attempt, step).random()
        return EVICTED if draw < 0.08 else CRASHED if draw < 0.1 else None

    world = World(
        study(parallelism=parallelism, limits={"trials": 15, "failedTrials": 100}),
        fault=fault,
        pace=lambda trial: 0.5 + chance(seed, "pace", trial.index).random(),
        lose_at=frozenset(range(loss_every, 4000, loss_every + 1)),
        resumable=resumable,
    ).run()
    check_invariants(world)
    assert world.study.status.state in ("Complete", "Failed")


@settings(max_examples=150)
@given(lose_at=st.frozensets(st.integers(1, 200), max_size=12))
def test_an_operator_lost_at_any_action_decides_as_if_nothing_had_happened(lose_at: frozenset[int]) -> None:
    spec = {"parallelism": 1, "limits": {"trials": 14}}
    undisturbed = World(study(**spec)).run()
    disturbed = World(study(**spec), lose_at=lose_at).run()
    assert disturbed.decisions() == undisturbed.decisions()
    assert disturbed.values() == undisturbed.values()
    assert disturbed.started == undisturbed.started
    assert disturbed.study.status.best == undisturbed.study.status.best


def test_an_attempt_that_vanished_while_the_operator_was_away_gets_a_new_number() -> None:
    world = World(study(parallelism=1, limits={"trials": 3}))
    world.turn([])
    world.now += 10
    world.turn([Started(0, 1, world.now)])
    world.now += 10
    world.turn([])
    assert world.stored[0].status.state == "Running"
    world.attempts.clear()
    world.timeline.clear()
    world.recover()
    assert (world.stored[0].status.attempt, world.stored[0].status.message) == (2, f"PodVanished: {VANISHED.message}")
    world.run()
    assert world.started[:2] == [(0, 1), (0, 2)]
    check_invariants(world)


def test_announcements_say_how_the_study_began_and_ended() -> None:
    world = World(study(limits={"trials": 3})).run()
    reasons = [a.reason for a in world.actions if isinstance(a, Announce)]
    assert (reasons[0], reasons[-1]) == ("Started", "TrialsFinished")

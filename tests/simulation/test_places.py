"""Studies that want more places than there are: few wait at a time, no place is left empty, and faults are told."""

import heapq
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.decide import decide
from halvard.events import Ended, Event, Fault, Outdated, Placed, Reported, Started, Stuck
from halvard.faults import VANISHED
from halvard.plan import SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.progress import Block, Progress
from halvard.starting import LOOK_AHEAD
from halvard.status import study_status
from halvard.trial import Trial, TrialSpec
from halvard_trainer.reports import Report
from simulation.world import CRASHED, DELETED, EVICTED, LEFT, World, chance, check_invariants, study

PULL = Fault("ImagePullBackOff", "no such image", counted=False)


def crowded(trials: int = 100, **world: Any) -> World:
    """A study that would run a thousand trials at once, in a world with eight places."""
    return World(study(parallelism=1000, limits={"trials": trials}), places=8, **world)


def uneven(trial: Trial) -> float:
    return 0.5 + chance(1, "pace", trial.index).random()


def never(_trial: int, _attempt: int) -> float:
    return math.inf


def changed(world: World, **spec: Any) -> None:
    """The user changes the study."""
    world.progress.update_study(world.study.model_copy(update={"spec": world.study.spec.model_copy(update=spec)}))
    world.turn([])


def given_places(world: World, *trials: int) -> None:
    """The first attempts of these trials get a place."""
    for index in trials:
        world.attempts[index, 1].placed = True
    world.turn([Placed(index, 1) for index in trials])


def stopped(world: World) -> list[int]:
    return [action.trial.index for action in world.actions if isinstance(action, StopLeg)]


# --- how many wait


def test_few_attempts_wait_for_a_place_however_large_parallelism_is() -> None:
    world = crowded(delay=never)
    world.turn([])
    assert world.started == [(index, 1) for index in range(LOOK_AHEAD)]


def test_no_trial_is_chosen_before_it_may_start() -> None:
    world = crowded(delay=never)
    world.turn([])
    assert len(world.stored) == LOOK_AHEAD
    given_places(world, 0)
    assert len(world.stored) == LOOK_AHEAD + 1


def test_with_fewer_places_than_parallelism_all_are_taken_and_somebody_always_waits() -> None:
    world = crowded(pace=uneven)
    fill, taken = world.fill, []

    def watched() -> list[Event]:
        events = fill()
        if len(world.stored) < 100:
            taken.append(sum(attempt.placed for attempt in world.attempts.values()))
        return events

    world.fill = watched  # type: ignore[method-assign]
    world.run()
    check_invariants(world)
    assert taken[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(taken[8:]) == {8}
    assert (world.study.status.state, world.study.status.trials.total) == ("Complete", 100)


def test_a_thousand_places_are_taken_where_there_are_so_many() -> None:
    world = World(study(parallelism=1000, limits={"trials": 2000}), pace=lambda _trial: 60.0)
    world.turn([])
    while world.timeline[0][0] < world.now + 30:
        world.now, _, happen = heapq.heappop(world.timeline)
        world.turn(happen())
    assert sum(attempt.running for attempt in world.attempts.values()) == 1000


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    parallelism=st.integers(1, 40),
    places=st.integers(1, 12),
    patience=st.floats(0, 50),
    loss_every=st.integers(2, 60),
)
def test_never_do_more_wait_than_may_and_every_study_ends(
    *, seed: int, parallelism: int, places: int, patience: float, loss_every: int
) -> None:
    def fault(trial: int, attempt: int, step: int) -> Fault | None:
        draw = chance(seed, "fault", trial, attempt, step).random()
        return EVICTED if draw < 0.08 else CRASHED if draw < 0.1 else None

    world = World(  # the world itself asserts that no more than LOOK_AHEAD wait
        study(parallelism=parallelism, limits={"trials": 30, "failedTrials": 100}),
        fault=fault,
        pace=lambda trial: 0.5 + chance(seed, "pace", trial.index).random(),
        places=places,
        delay=lambda trial, attempt: patience * chance(seed, "delay", trial, attempt).random() ** 4,
        lose_at=frozenset(range(loss_every, 4000, loss_every + 1)),
    ).run()
    check_invariants(world)
    assert world.study.status.state in ("Complete", "Failed")


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), restarts=st.integers(1, 5))
def test_an_operator_that_restarts_between_turns_decides_the_same_however_many_wait(seed: int, restarts: int) -> None:
    def history() -> World:
        return crowded(
            trials=40,
            pace=lambda trial: 0.5 + chance(seed, "pace", trial.index).random(),
            delay=lambda trial, attempt: 5 * chance(seed, "delay", trial, attempt).random() ** 4,
        )

    calm, restless = history(), history()
    turn, turns, restarting = restless.turn, iter(range(1_000_000)), False

    def turned(events: list[Event]) -> None:
        nonlocal restarting
        turn(events)
        if not restarting and next(turns) % restarts == 0:
            restarting = True
            restless.recover()
            restarting = False

    restless.turn = turned  # type: ignore[method-assign]
    calm.run()
    restless.run()
    assert restless.restarts > 20
    assert restless.decisions() == calm.decisions()
    assert restless.started == calm.started
    assert restless.values() == calm.values()


def test_after_a_restart_a_report_is_decided_on_before_anybody_has_looked_at_the_others() -> None:
    world = World(study(parallelism=8, limits={"trials": 50}))
    world.turn([])
    given_places(world, 0, 1, 2, 3)
    given_places(world, 4, 5, 6, 7)
    events: list[Event] = [Started(5, 1, world.now), Reported(5, 1, world.now, Report(1, {"loss": 0.5}))]
    again = decide(world.fold(), events, world.now)
    assert again.actions == decide(world.progress, events, world.now).actions
    assert [leg.trial.index for leg in again.actions if isinstance(leg, StartLeg)] == [8]


# --- who waits


def test_a_trial_goes_on_in_its_own_place_also_while_others_wait_for_one() -> None:
    world = crowded(curve=lambda trial, _step: -float(trial.index))  # every trial is better than all before it
    world.run()
    check_invariants(world)
    hot = [action for action in world.actions if isinstance(action, SaveSpec) and action.hot]
    assert len(hot) > 20


def test_a_promoted_trial_is_the_next_to_wait_for_a_place() -> None:
    world = crowded(pace=uneven, curve=lambda trial, _step: abs(trial.index - 1.5))
    world.turn([])
    while not any(isinstance(action, SaveSpec) and not action.hot for action in world.actions):
        world.now, _, happen = heapq.heappop(world.timeline)
        world.turn(happen())
    promoted = next(action for action in world.actions if isinstance(action, SaveSpec) and not action.hot)
    begun = len(world.started)
    world.run()
    assert world.started[begun][0] == promoted.trial.index


def test_lowering_parallelism_takes_those_that_wait_before_those_that_run() -> None:
    world = World(study(parallelism=4))
    world.turn([])
    world.turn([Started(1, 1, world.now), Placed(3, 1)])
    changed(world, parallelism=1)
    assert stopped(world) == [0, 2, 3]


def test_with_another_template_those_that_wait_are_made_again_and_those_that_run_go_on() -> None:
    world = World(study(parallelism=3))
    world.turn([])
    world.turn([Started(0, 1, world.now), Placed(1, 1)])
    changed(world, template={"spec": {"containers": [{"name": "trainer", "image": "another"}]}})
    assert stopped(world) == [2]


def test_one_that_waits_with_an_older_template_is_made_again_also_where_nobody_saw_the_change() -> None:
    world = World(study(parallelism=2))
    world.turn([])
    world.turn([Outdated(1, 1)])
    assert stopped(world) == [1]
    world.turn([Ended(1, 1, world.now, DELETED)])
    assert world.started == [(0, 1), (1, 1), (1, 2)]
    assert world.faults == []


def test_a_stuck_attempt_of_an_older_template_is_made_again() -> None:
    world = World(study(parallelism=1))
    world.turn([])
    world.turn([Placed(0, 1), Stuck(0, 1, PULL), Outdated(0, 1)])
    assert stopped(world) == [0]


def test_a_quota_that_is_used_up_stops_a_crowd_as_well_as_a_few() -> None:
    world = crowded()
    start, refusals = world.start, []

    def quota(leg: StartLeg, trial: Trial) -> None:
        if len(world.attempts) >= 3:
            refusals.append(trial.index)
            world.progress.refused(trial.index, "QuotaExhausted", "exceeded quota: gpus", world.now)
        else:
            start(leg, trial)

    world.start = quota  # type: ignore[method-assign]
    world.turn([])
    assert refusals == [3]
    world.run()
    check_invariants(world)
    assert (world.study.status.state, world.study.status.trials.total) == ("Complete", 100)


def test_a_quota_that_has_room_again_is_no_trouble_while_others_wait_for_a_node() -> None:
    pending = [
        Trial(name=f"s-{index:04d}", spec=TrialSpec(index=index, budget=1, parameters={"x": 0.5}, order=index + 1))
        for index in range(6)
    ]
    progress = Progress(study(parallelism=6, limits={"trials": 6}), pending)
    decide(progress, [], 0.0)
    for index in range(LOOK_AHEAD):
        progress.refused(index, "QuotaExhausted", "exceeded quota: gpus", 0.0)
    assert degraded(progress) == ["QuotaExhausted"]
    for seconds in range(1, 10):  # each is taken now, and has no node
        decide(progress, [], float(seconds))
        assert degraded(progress) == []
    assert len(progress.live) == LOOK_AHEAD
    progress.refused(0, "QuotaExhausted", "exceeded quota: gpus", 10.0)
    assert degraded(progress) == ["QuotaExhausted"]


def degraded(progress: Progress) -> list[str]:
    """Why the study is Degraded, if it is."""
    conditions = study_status(progress, 0.0).conditions
    return [each.reason for each in conditions if each.type == "Degraded" and each.status == "True"]


@pytest.mark.parametrize("event", [Placed(0, 1, "a"), Started(0, 1, 1.0, 1.0, "a")])
def test_a_pod_that_came_to_be_although_nobody_could_say_so_is_its_trials(event: Event) -> None:
    progress = given_up()
    actions = [*decide(progress, [event], 1.0).actions, *decide(progress, [], 100.0).actions]
    assert [action for action in actions if isinstance(action, StartLeg)] == []
    report = Reported(0, 1, 101.0, Report(1, {"loss": 0.5}, "step-1"), "uid")
    assert decide(progress, [report], 101.0).results == (report,)


def test_a_pod_that_came_to_be_although_nobody_could_say_so_is_stopped_where_it_may_not_run() -> None:
    progress = given_up()
    progress.update_study(study(suspend=True))
    decide(progress, [], 1.0)
    [stop] = decide(progress, [Placed(0, 1, "a")], 2.0).actions
    assert isinstance(stop, StopLeg)
    assert (stop.trial.index, stop.attempt, stop.reason) == (0, 1, "the study is suspended")


def given_up() -> Progress:
    """A study whose one Pod was asked for, and neither the answer nor a Pod was there in time."""
    progress = Progress(study(parallelism=1))
    decide(progress, [], 0.0)
    progress.refused(0, "PodNotCreated", "no answer", 0.0)
    return progress


def test_who_waits_for_room_waits_for_an_event_and_for_no_time() -> None:
    world = World(study(parallelism=6))
    world.turn([])
    given_places(world, 0, 1)
    world.turn([Ended(0, 1, world.now, EVICTED)])
    world.progress.block = Block("QuotaExhausted", "exceeded quota", until=world.now + 5)
    world.now += 10
    plan = decide(world.progress, [], world.now)
    assert sum(not attempt.placed for attempt in world.progress.live.values()) == LOOK_AHEAD
    assert plan.actions == ()
    assert plan.wake_at is None
    [leg] = decide(world.progress, [Placed(2, 1)], world.now).actions
    assert isinstance(leg, StartLeg)
    assert (leg.trial.index, leg.trial.attempt) == (0, 2)


# --- faults


@pytest.mark.parametrize("fault", [CRASHED, EVICTED])
def test_a_fault_is_told_once(fault: Fault) -> None:
    world = World(study())
    world.turn([])
    ended = [Ended(0, 1, world.now, fault)]
    assert decide(world.progress, ended, world.now).faults == (fault,)
    assert decide(world.progress, ended, world.now).faults == ()


def test_faults_are_told_in_the_order_in_which_they_came() -> None:
    world = World(study())
    world.turn([])
    ended = [Ended(2, 1, world.now, CRASHED), Ended(0, 1, world.now, EVICTED), Ended(1, 1, world.now, CRASHED)]
    assert decide(world.progress, ended, world.now).faults == (CRASHED, EVICTED, CRASHED)


def test_the_end_of_an_attempt_that_was_superseded_or_stopped_is_no_fault() -> None:
    world = World(study())
    world.turn([])
    changed(world, suspend=True)
    world.turn([Ended(0, 1, world.now, EVICTED), Ended(1, 7, world.now, CRASHED)])
    assert world.faults == []


def test_an_end_after_the_result_is_no_fault() -> None:
    world = World(study(parallelism=1))
    world.turn([])
    report = Reported(0, 1, world.now, Report(1, {"loss": 0.5}))
    world.turn([report, Ended(0, 1, world.now, CRASHED)])
    assert world.faults == []


def test_an_attempt_that_vanished_while_nobody_looked_is_a_fault() -> None:
    world = World(study(parallelism=1))
    world.turn([])
    world.turn([Started(0, 1, world.now)])
    world.now += 10
    world.turn([])  # its Running is stored
    world.attempts.clear()
    world.timeline.clear()
    world.recover()
    assert world.faults == [VANISHED]


def test_a_study_that_ends_in_an_operators_first_turn_accounts_for_all_that_ran() -> None:
    world = World(study(parallelism=3, limits={"trials": 9, "duration": "60s"}))
    world.turn([])
    given_places(world, 0, 1, 2)
    world.turn([Started(index, 1, world.now, gpus=2.0) for index in range(3)])
    world.turn([Reported(index, 1, world.now, Report(1, {"other": 0.0})) for index in range(3)])
    again, began = world.fold(), world.now
    plan = decide(again, [Placed(0, 1), *(Started(index, 1, began, gpus=2.0) for index in range(3))], began + 100)
    ended = [action.trial for action in plan.actions if isinstance(action, SaveStatus)]
    assert [(t.status.state, t.status.lost.seconds, t.status.lost.gpu_seconds) for t in ended] == [
        ("Stopped", 100, 200)
    ] * 3


def test_who_had_ended_when_a_study_ends_is_not_taken_to_have_run_until_then() -> None:
    world = World(study(parallelism=1, limits={"trials": 9, "duration": "60s"}))
    world.turn([])
    given_places(world, 0)
    again, began = world.fold(), world.now
    events: list[Event] = [Started(0, 1, began, 1.0, "node"), Ended(0, 1, began + 3, EVICTED)]
    plan = decide(again, events, began + 100)
    [ended] = [action.trial.status for action in plan.actions if isinstance(action, SaveStatus)]
    assert (ended.state, ended.lost.seconds) == ("Stopped", 3)


def test_a_pod_is_stopped_with_its_study_only_once_that_is_stored() -> None:
    world = World(study(parallelism=2, limits={"duration": "60s"}))
    world.turn([])
    given_places(world, 0, 1)
    plan = decide(world.progress, [], world.now + 100)
    order = [(type(action), action.trial.index) for action in plan.actions if isinstance(action, SaveStatus | StopLeg)]
    assert order == [(SaveStatus, 0), (StopLeg, 0), (SaveStatus, 1), (StopLeg, 1)]


def test_what_ended_while_nobody_looked_has_used_no_gpu_since() -> None:
    hour = 3600.0
    world = World(study(parallelism=1, limits={"gpuHours": 2}, scheduler={"none": {"budget": 1}}))
    world.turn([])
    given_places(world, 0)
    again, began = world.fold(), world.now
    half = began + hour / 2
    told: list[Event] = [Reported(0, 1, half, Report(1, {"loss": 0.5})), Ended(0, 1, half, LEFT)]
    plan = decide(again, [Started(0, 1, began, 1.0, "node"), *told], began + 5 * hour)
    assert again.outcome is None
    assert again.gpu_seconds(began + 5 * hour) == hour / 2
    assert [(a.trial.index, a.trial.status.state) for a in plan.actions if isinstance(a, SaveStatus | StartLeg)] == [
        (0, "Complete"),
        (1, "Pending"),
    ]


def test_what_was_reported_while_nobody_listened_counts_also_where_the_time_is_over() -> None:
    world = World(study(parallelism=2, limits={"duration": "60s"}, scheduler={"none": {"budget": 1}}))
    world.turn([])
    given_places(world, 0, 1)
    again, began = world.fold(), world.now
    events: list[Event] = [Started(index, 1, began, 1.0, "node") for index in range(2)]
    events += [Reported(0, 1, began + 30, Report(1, {"loss": 0.5})), Ended(0, 1, began + 31, LEFT)]
    plan = decide(again, events, began + 100)
    assert again.outcome is not None
    assert again.outcome.reason == "DurationReached"
    ended = [action.trial.status for action in plan.actions if isinstance(action, SaveStatus)]
    assert [(status.state, [result.seconds for result in status.rungs]) for status in ended] == [
        ("Complete", [30]),
        ("Stopped", []),
    ]
    assert [action.trial.index for action in plan.actions if isinstance(action, StopLeg)] == [1]
    assert (plan.repeated, [*again.leaving]) == (0, [(1, 1)])


def test_a_new_leader_believes_the_kubelet_and_not_a_sidecar_that_was_started_again() -> None:
    world = World(study(parallelism=1))
    world.turn([])
    given_places(world, 0)
    again, began = world.fold(), world.now
    pushed: list[Event] = [Started(0, 1, began + 11.99, 1.0), Reported(0, 1, began + 12, Report(1, {"loss": 0.5}))]
    plan = decide(again, [*pushed, Started(0, 1, began, 1.0, "node")], began + 12)
    [stored] = {action.trial.name: action.trial for action in plan.actions if isinstance(action, SaveStatus)}.values()
    assert [(result.seconds, result.gpu_seconds) for result in stored.status.rungs] == [(12, 12)]

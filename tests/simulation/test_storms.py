"""Storms: nodes on which whatever starts ends at once; how many Pods that makes, and who is blamed for it."""

import heapq
import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.events import Fault
from halvard.plan import Announce
from halvard.starting import LOOK_AHEAD
from simulation.world import CRASHED, EPOCH, EVICTED, World, chance, check_invariants, check_promotions, study

REJECTED = Fault("NodeRejected", "UnexpectedAdmissionError: no healthy devices", counted=False)
BAD, ROOM = "bad", 4
NODES = {"good-0": 4, BAD: ROOM, "good-1": 4}
MINUTE = 60.0


def stormy(fault: Fault, **world: Any) -> World:
    """A study of some hours on three nodes of four places each, of which one ends whatever starts there."""
    spec = study(parallelism=8, limits={"trials": 40})
    return World(
        spec,
        nodes=NODES,
        broken=lambda node, _now: fault if node == BAD else None,
        pace=lambda _trial: 2 * MINUTE,
        **world,
    )


def on(world: World, node: str) -> list[float]:
    """When attempts began on a node."""
    return sorted(pod.began for pod in world.pods.values() if world.ran_on[pod.trial, pod.attempt] == node)


def bound(seconds: float, room: int = ROOM) -> int:
    """How many attempts may begin on a node with so much room on which all end at once: see docs/faults.md."""
    pauses, over = [5.0, 10.0, 20.0, 40.0], 0.0
    times = 0
    while over < seconds:
        over += MINUTE * (pauses[times] if times < len(pauses) else 60.0)
        times += 1
    return 2 + times * (room + LOOK_AHEAD)


def losses(every: int | None) -> frozenset[int]:
    """The actions at which an operator dies that dies at every so many."""
    return frozenset(range(every, 20_000, every + 1)) if every else frozenset()


def announced(world: World, reason: str) -> list[str]:
    return [action.message for action in world.actions if isinstance(action, Announce) and action.reason == reason]


def until(world: World, at: float) -> None:
    """Turns the crank until then."""
    if not world.actions:
        world.turn([])
    while min(world.timeline[0][0] if world.timeline else math.inf, world.wake or math.inf) <= at:
        if world.timeline and (world.wake is None or world.timeline[0][0] <= world.wake):
            world.now, _, happen = heapq.heappop(world.timeline)
            world.turn(happen())
        else:
            world.now = max(world.now, world.wake or 0.0)
            world.turn([])


@pytest.mark.parametrize("lose_every", [None, 13])
@pytest.mark.parametrize("fault", [REJECTED, CRASHED], ids=lambda fault: fault.reason)
def test_a_broken_node_costs_few_pods_and_the_study_goes_on_elsewhere(fault: Fault, lose_every: int | None) -> None:
    world = stormy(fault, lose_at=losses(lose_every)).run()
    check_invariants(world)
    assert (world.study.status.state, world.study.status.trials.total) == ("Complete", 40)
    assert world.now - EPOCH > 30 * MINUTE
    assert len(on(world, BAD)) <= bound(world.now - EPOCH)
    assert world.study.status.trials.failed <= (2 if fault.counted else 0)
    assert announced(world, "NodeAvoided")[0].startswith("bad is avoided for 5 min: the last 3 trials there ended")
    assert announced(world, "TooManyFaults") == []


def test_a_node_that_works_again_is_used_again() -> None:
    world = stormy(REJECTED)
    world.broken = lambda node, now: REJECTED if node == BAD and now < EPOCH + 4 * MINUTE else None
    world.run()
    assert len(on(world, BAD)) > 10
    assert len(announced(world, "NodeAvoided")) == 1


def test_a_leg_that_a_node_is_blamed_for_says_so_and_runs_elsewhere() -> None:
    world = stormy(CRASHED)
    until(world, EPOCH + MINUTE / 2)
    blamed = {fault.message for fault in world.faults if fault.reason == "NodeSuspect"}
    assert blamed == {"bad may be to blame: NonZeroExit: exit code 1"}
    again = [trial for trial in world.stored.values() if trial.status.retries and trial.status.state != "Failed"]
    assert again
    for trial in again:
        assert world.ran_on.get((trial.index, 2), "elsewhere") != BAD


@pytest.mark.parametrize("lose_every", [None, 5])
def test_a_trial_that_fails_on_every_node_is_let_off_once(lose_every: int | None) -> None:
    world = World(
        study(parallelism=8, limits={"trials": 40, "failedTrials": 40}),
        nodes=NODES,
        broken=lambda node, _now: CRASHED if node == BAD else None,
        fault=lambda trial, _attempt, _step: CRASHED if trial % 2 else None,
        lose_at=losses(lose_every),
    ).run()
    check_promotions(world.actions)
    assert {world.stored[i].status.state for i in range(1, 40, 2)} == {"Failed"}
    assert {world.stored[i].status.faults for i in range(1, 40, 2)} == {0, 1}


def test_what_the_user_decided_is_not_laid_to_a_node() -> None:
    exited = Fault("NonZeroExit", "exit code 7", counted=True, exit_code=7)
    rules = [{"action": "FailTrial", "onExitCodes": {"operator": "In", "values": [7]}}]
    world = World(
        study(parallelism=8, limits={"trials": 40}, failurePolicy={"rules": rules}),
        nodes=NODES,
        broken=lambda node, _now: exited if node == BAD else None,
        pace=lambda _trial: MINUTE,
    ).run()
    assert "NodeSuspect" not in {fault.reason for fault in world.faults}
    assert world.study.status.trials.failed == len(on(world, BAD)) > 2
    assert announced(world, "NodeAvoided")


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32),
    rooms=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    bad=st.integers(1, 4),
    parallelism=st.integers(2, 12),
    loss_every=st.integers(5, 200),
)
def test_whatever_nodes_are_broken_while_one_works_no_trial_fails_and_few_pods_are_made(
    *, seed: int, rooms: list[int], bad: int, parallelism: int, loss_every: int
) -> None:
    nodes = {f"node-{n}": room for n, room in enumerate(rooms)}
    broken = {*list(nodes)[: min(bad, len(nodes) - 1)]}
    world = World(
        study(parallelism=parallelism, limits={"trials": 20}),
        nodes=nodes,
        broken=lambda node, _now: REJECTED if node in broken else None,
        pace=lambda trial: MINUTE * (0.5 + chance(seed, "pace", trial.index).random()),
        lose_at=losses(loss_every),
    ).run(turns=3000)
    assert len(world.ran_on) >= len(world.pods), "no attempt has begun twice"
    assert (world.study.status.state, world.study.status.trials.failed) == ("Complete", 0)
    for node in broken:
        assert len(on(world, node)) <= bound(world.now - EPOCH, nodes[node])


def test_the_only_node_is_never_avoided() -> None:
    world = World(
        study(limits={"trials": 9}), nodes={"only": 2}, broken=lambda _n, now: REJECTED if now < EPOCH + 20 else None
    ).run()
    assert announced(world, "NodeAvoided") == []
    assert world.study.status.state == "Complete"


def test_a_pod_that_avoids_a_node_for_longer_than_it_has_to_is_made_anew() -> None:
    world = World(
        study(parallelism=4, limits={"trials": 20}),
        nodes={"taken": 2, BAD: 4},
        broken=lambda node, now: REJECTED if node == BAD and now < EPOCH + MINUTE else None,
        pace=lambda _trial: 60 * MINUTE,
    )
    until(world, EPOCH + 4 * MINUTE)
    assert {attempt.node for attempt in world.attempts.values() if attempt.placed} == {"taken"}
    until(world, EPOCH + 15 * MINUTE)
    assert {attempt.node for attempt in world.attempts.values() if attempt.placed} == {"taken", BAD}
    assert [trial.status.faults for trial in world.stored.values()] == [
        trial.status.retries for trial in world.stored.values()
    ]


# --- a node that is bad in part, or late


@pytest.mark.parametrize("lose_every", [None, 13])
def test_one_broken_gpu_among_healthy_ones_fails_two_trials(lose_every: int | None) -> None:
    world = half_broken(CRASHED, lose_at=losses(lose_every)).run()
    check_invariants(world)
    assert (world.study.status.state, world.study.status.trials.failed) == ("Complete", 2)
    assert announced(world, "NodeAvoided")


def test_one_gpu_that_is_refused_fails_no_trial_and_holds_nothing_up() -> None:
    world = half_broken(REJECTED).run()
    check_invariants(world)
    assert (world.study.status.state, world.study.status.trials.failed) == ("Complete", 0)
    assert announced(world, "TooManyFaults") == []


def half_broken(fault: Fault, **world: Any) -> World:
    """A study on two nodes of four places each; on one of them, whatever comes to the fourth ends at once."""
    made = World(
        study(parallelism=8, limits={"trials": 120}, scheduler={"none": {"budget": 9}}),
        nodes={"good": ROOM, BAD: ROOM},
        pace=lambda _trial: MINUTE,
        **world,
    )

    def broken(node: str, _now: float) -> Fault | None:
        running = sum(attempt.running for attempt in made.attempts.values() if attempt.node == BAD)
        return fault if node == BAD and running == ROOM else None

    made.broken = broken
    return made


@pytest.mark.parametrize("lose_every", [None, 31])
def test_a_node_that_kills_after_the_first_report_fails_three_trials_at_most(lose_every: int | None) -> None:
    world = World(
        study(parallelism=8, limits={"trials": 80}, scheduler={"none": {"budget": 9}}),
        nodes={"good": ROOM, BAD: ROOM},
        pace=lambda _trial: MINUTE,
        lose_at=losses(lose_every),
    )
    world.fault = lambda trial, attempt, step: CRASHED if step == 2 and world.ran_on[trial, attempt] == BAD else None
    world.run()
    assert (world.study.status.state, world.study.status.trials.failed <= 3) == ("Complete", True)
    assert announced(world, "NodeAvoided")[0].startswith("bad is avoided for 5 min: more trials fail there than elsewh")


def test_trials_that_fail_on_every_node_alike_are_hardly_ever_laid_to_one() -> None:
    failed, blamed, avoided = 0, 0, 0
    for seed in range(4):
        world = World(
            study(parallelism=12, limits={"trials": 120, "failedTrials": 120}, scheduler={"none": {"budget": 9}}),
            nodes={"a": ROOM, "b": ROOM, "c": ROOM},
            pace=lambda _trial: MINUTE,
            fault=partial(fails_of_itself, seed),
        ).run()
        failed += world.study.status.trials.failed
        blamed += sum(fault.reason == "NodeSuspect" for fault in world.faults)
        avoided += len(announced(world, "NodeAvoided"))
    assert failed > 30
    assert (blamed <= 2, avoided) == (True, 0)


def fails_of_itself(seed: int, trial: int, _attempt: int, step: int) -> Fault | None:
    """One trial in ten, half of them before they report."""
    return CRASHED if step == 1 + 2 * (trial % 2) and chance(seed, "bad", trial).random() < 0.1 else None


def test_a_bad_node_that_looks_idle_while_the_others_are_full_does_not_hold_up_the_study() -> None:
    world = World(
        study(parallelism=12, limits={"trials": 40}, scheduler={"none": {"budget": 400}}),
        nodes={"good": 8, BAD: 8},
        broken=lambda node, _now: REJECTED if node == BAD else None,
        pace=lambda _trial: MINUTE,
    )
    until(world, EPOCH + 6 * 60 * MINUTE)
    assert len(on(world, BAD)) > 10
    assert announced(world, "TooManyFaults") == []


# --- everywhere


@pytest.mark.parametrize("lose_every", [None, 23, 7])
@pytest.mark.parametrize("nodes", [{}, {"a": 16, "b": 16}, {"a": 8, "b": 8, "c": 8, "d": 8}], ids=len)
@pytest.mark.parametrize(("parallelism", "survivors"), [(8, 1), (30, 1), (30, 15)])
def test_trials_that_go_on_through_an_outage_do_not_hide_it(
    parallelism: int, survivors: int, nodes: dict[str, int], lose_every: int | None
) -> None:
    hours, begins = 4, EPOCH + 130
    ends = begins + hours * 60 * MINUTE
    world = World(
        study(parallelism=parallelism, limits={"trials": 60}, scheduler={"none": {"budget": 400}}),
        nodes=nodes,
        broken=lambda _node, now: REJECTED if begins < now < ends else None,
        fault=lambda trial, attempt, step: EVICTED if trial >= survivors and (attempt, step) == (1, 3) else None,
        pace=lambda _trial: MINUTE,
        lose_at=losses(lose_every),
    )
    until(world, ends - 1)
    assert sum(attempt.running for attempt in world.attempts.values()) == survivors
    tried = [pod for pod in world.pods.values() if pod.began > begins]
    assert len(tried) <= 9 + parallelism + 4 + hours * 6 + len(nodes)
    until(world, ends + 70 * MINUTE)  # a node may be avoided for an hour
    assert world.study.status.trials.failed == 0
    assert sum(attempt.running for attempt in world.attempts.values()) == parallelism


@pytest.mark.parametrize("lose_every", [None, 23, 7])
@pytest.mark.parametrize("parallelism", [2, 8, 40])
def test_where_everything_fails_few_pods_are_made_and_no_trial_fails(parallelism: int, lose_every: int | None) -> None:
    hours = 4
    world = World(
        study(parallelism=parallelism, limits={"trials": 50}),
        broken=lambda _node, now: EVICTED if now < EPOCH + hours * 60 * MINUTE else None,
        lose_at=losses(lose_every),
    )
    until(world, EPOCH + hours * 60 * MINUTE - 1)
    # until it opens; then after 1, 2, 4 and 8 minutes, and every 10
    assert 10 <= len(world.pods) <= 9 + parallelism + 4 + hours * 6
    degraded = next(each for each in world.study.status.conditions if each.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "TooManyFaults")
    assert degraded.message.endswith("Evicted: the node was low on memory")
    world.run()
    check_invariants(world)
    assert (world.study.status.state, world.study.status.trials.failed) == ("Complete", 0)
    assert [each for each in world.study.status.conditions if (each.type, each.status) == ("Degraded", "True")] == []
    assert world.now < EPOCH + (hours * 60 + 10) * MINUTE + 3600


def test_a_trial_that_alone_comes_to_nothing_fails_in_the_end_and_the_others_go_on() -> None:
    world = World(
        study(limits={"trials": 9, "retries": 4}), fault=lambda trial, _attempt, _step: EVICTED if trial == 1 else None
    ).run()
    check_invariants(world)
    status = world.stored[1].status
    assert (status.state, status.faults, status.retries) == ("Failed", 4, 5)
    assert status.message.startswith("RetriesExhausted: 5 times in a row without progress, the last: Evicted: ")
    assert (world.study.status.state, world.study.status.trials.failed) == ("Complete", 1)
    assert world.faults[-1].reason == "RetriesExhausted" or "RetriesExhausted" in {f.reason for f in world.faults}


def test_faults_with_progress_in_between_are_no_row() -> None:
    world = World(
        study(limits={"trials": 3, "retries": 1}, scheduler={"none": {"budget": 9}}),
        fault=lambda _trial, attempt, step: EVICTED if step == attempt + 1 else None,
    ).run()
    check_invariants(world)
    assert world.study.status.trials.failed == 0
    assert min(trial.status.faults for trial in world.stored.values()) > 5


@pytest.mark.parametrize("lose_every", [None, 3])
def test_the_pause_before_a_leg_runs_again_is_kept_by_an_operator_that_takes_over(lose_every: int | None) -> None:
    world = World(
        study(parallelism=1, limits={"trials": 1}),
        fault=lambda _trial, attempt, _step: EVICTED if attempt < 8 else None,
        pace=lambda _trial: 0.5,
        lose_at=losses(lose_every),
    ).run()
    began = [pod.began for pod in world.pods.values() if pod.trial == 0][:8]
    pauses = [later - earlier for earlier, later in pairwise(began)]
    assert pauses == pytest.approx([2.0**n + 0.7 for n in range(7)], abs=0.1)


def test_when_all_that_had_reported_are_drained_nothing_is_held_up() -> None:
    world = World(study(parallelism=30, limits={"trials": 30}, scheduler={"none": {"budget": 9}}))
    until(world, EPOCH + 4)
    running = [key for key, attempt in world.attempts.items() if attempt.running]
    assert len(running) == 30
    world.turn([event for key in running for event in world.end(*key, EVICTED)])
    assert world.progress.block is None
    world.run()
    check_invariants(world)
    assert announced(world, "TooManyFaults") == []
    assert [trial.status.faults for trial in world.stored.values()] == [1] * 30


# --- broken scripts


@pytest.mark.parametrize("nodes", [{}, {"only": 8}, {"a": 4, "b": 4}, {"a": 8, "b": 8, "c": 8}], ids=len)
def test_a_script_that_always_fails_ends_the_study_as_soon_as_without_nodes(nodes: dict[str, int]) -> None:
    def failing(**world: Any) -> World:
        return World(study(parallelism=8, limits={"trials": 99}), broken=lambda *_: CRASHED, **world).run()

    before, world = failing(places=sum(nodes.values()) or math.inf), failing(nodes=nodes)
    check_invariants(world)
    assert (world.study.status.state, world.study.status.trials.failed) == ("Failed", 21)
    assert len(world.pods) <= len(before.pods) + (6 if len(nodes) > 1 else 0)
    assert world.now - EPOCH <= before.now - EPOCH + 2

"""A trainer has ended, and another container of its Pod goes on for ever: the trainer decides."""

from dataclasses import dataclass, field, replace

import pytest
from typing_extensions import override

from halvard.events import Ended, Event, Fault, LeftBehind, Reported, Started
from halvard.plan import Action, StopLeg
from halvard_trainer.reports import Report
from simulation.world import CRASHED, DELETED, EVICTED, LEFT, World, check_invariants, study


@dataclass
class Accompanied(World):
    """A world in which a Pod whose trainer has ended stays until it is deleted."""

    left: dict[tuple[int, int], tuple[Fault, float]] = field(default_factory=dict)
    deleted: set[tuple[int, int]] = field(default_factory=set)

    @override
    def apply(self, action: Action) -> None:
        super().apply(action)
        if isinstance(action, StopLeg):
            self.deleted.add((action.trial.index, action.attempt))

    @override
    def end(self, index: int, number: int, fault: Fault) -> list[Event]:
        key = (index, number)
        if key not in self.attempts or (fault is not DELETED and key in self.left):
            return []
        if fault is not DELETED:
            self.left[key] = fault, self.now
            return [LeftBehind(*key)]
        own, at = self.left.pop(key, (DELETED, self.now))
        uid = self.attempts[key].uid
        events = super().end(*key, DELETED)
        if uid:
            self.pods[uid] = replace(self.pods[uid], ended=at)
        return [replace(event, at=at, own=own) for event in events if isinstance(event, Ended)]

    @override
    def ends(self) -> list[Event]:
        waiting = [LeftBehind(*key) for key in self.left if key in self.attempts and key not in self.deleted]
        return [*super().ends(), *waiting]


def crashes(trial: int, _attempt: int, _step: int) -> Fault | None:
    return CRASHED if trial in {1, 4} else None


def begun() -> World:
    """A world in which trial 0 trains."""
    world = World(study(parallelism=1))
    world.turn([])
    world.turn([Started(0, 1, world.now, 1.0)])
    world.actions.clear()
    return world


def stops(world: World) -> list[tuple[int, int]]:
    return [(action.trial.index, action.attempt) for action in world.actions if isinstance(action, StopLeg)]


def test_a_study_whose_pods_never_end_by_themselves_ends_as_any_other() -> None:
    world = Accompanied(study(), fault=crashes).run()
    check_invariants(world)
    assert world.faults == [CRASHED, CRASHED]
    failed = {i: t.status for i, t in world.stored.items() if t.status.state == "Failed"}
    assert {i: (status.attempt, status.faults) for i, status in failed.items()} == {1: (1, 0), 4: (1, 0)}
    assert all(trial.status.faults == 0 for trial in world.stored.values())
    assert set(stops(world)) == set(world.started)


def test_infrastructure_that_ended_the_trainer_is_not_counted_though_halvard_deleted_the_pod() -> None:
    world = Accompanied(study(), fault=lambda trial, attempt, _: EVICTED if (trial, attempt) == (2, 1) else None).run()
    assert world.faults == [EVICTED]


@pytest.mark.parametrize("lost", range(1, 40))
def test_a_loss_of_the_operator_blames_no_other_trial_and_stalls_nothing(lost: int) -> None:
    world = Accompanied(study(limits={"trials": 6}), fault=crashes, lose_at=frozenset([lost])).run()
    assert {i for i, trial in world.stored.items() if trial.status.state == "Failed"} == {1, 4}


def test_a_pod_that_is_left_behind_is_deleted_at_once_and_once() -> None:
    world = begun()
    world.turn([LeftBehind(0, 1)])
    world.turn([LeftBehind(0, 1)])
    assert stops(world) == [(0, 1)]
    assert 0 in world.progress.live  # its last report may still come


def test_a_report_that_the_collector_delivers_in_the_end_is_the_result() -> None:
    world = begun()
    world.turn([LeftBehind(0, 1)])
    world.turn([Reported(0, 1, world.now, Report(1, {"loss": 0.5})), Ended(0, 1, world.now, DELETED, own=LEFT)])
    assert world.values() == {(0, 1): 0.5}
    assert world.faults == []


@pytest.mark.parametrize(("own", "state"), [(CRASHED, "Failed"), (LEFT, "Failed"), (EVICTED, "Pending")])
def test_the_trainer_decides_where_halvard_deleted_the_pod_for_it(own: Fault, state: str) -> None:
    world = begun()
    world.turn([LeftBehind(0, 1)])
    world.turn([Ended(0, 1, world.now, DELETED, own=own)])
    assert world.faults == [own]
    assert world.stored[0].status.state == state


def test_a_pod_that_somebody_else_deleted_is_one_that_was_deleted() -> None:
    world = begun()
    world.turn([Ended(0, 1, world.now, DELETED, own=CRASHED)])
    assert world.faults == [DELETED]


def test_a_trainer_that_ended_because_halvard_stopped_it_has_no_fault() -> None:
    world = begun()
    world.study = world.study.model_copy(update={"spec": world.study.spec.model_copy(update={"suspend": True})})
    world.progress.update_study(world.study)
    world.turn([])
    world.turn([LeftBehind(0, 1)])
    assert stops(world) == [(0, 1)]
    world.turn([Ended(0, 1, world.now, DELETED, own=CRASHED)])
    assert world.faults == []
    assert world.stored[0].status.message == "the study is suspended"


def test_a_pod_of_an_older_attempt_that_is_left_behind_gets_its_grace_and_is_deleted() -> None:
    world = begun()
    world.turn([Ended(0, 1, world.now, EVICTED)])
    world.turn([LeftBehind(0, 1)])
    assert stops(world) == []
    world.now += 60
    world.turn([])
    assert stops(world) == [(0, 1)]

"""A Pod is gone before anything of it was stored, and so is the operator that knew of it: its number is used again."""

import pytest

from halvard.decide import decide
from halvard.events import Event, Reported, Started
from halvard.plan import SaveStatus, StartLeg
from halvard.progress import Progress
from halvard_trainer.reports import Report
from simulation.world import DELETED, World, chance, study


def test_a_number_that_nobody_remembers_is_used_again_and_nothing_of_its_first_pod_counts() -> None:
    world = World(
        study(parallelism=2, limits={"trials": 5}),
        fault=lambda trial, attempt, step: DELETED if chance(0, "f", trial, attempt, step).random() < 0.3 else None,
        lose_at=frozenset([6]),
    ).run()
    numbers = [(pod.trial, pod.attempt) for pod in world.pods.values()]
    [again] = {number for number in numbers if numbers.count(number) > 1}
    first, _ = (uid for uid, pod in world.pods.items() if (pod.trial, pod.attempt) == again)
    saved = [version.status.checkpoint for version in world.versions if version.status.checkpoint]
    assert saved
    assert first not in {checkpoint.pod for checkpoint in saved}


@pytest.mark.parametrize("step", [1, 9])
def test_a_report_of_a_pod_that_vanished_is_not_taken_for_that_of_the_next_one(step: int) -> None:
    world = World(study(parallelism=1, limits={"trials": 1}, scheduler={"none": {"budget": 9}}))
    world.turn([])
    late: list[Event] = [
        Started(0, 1, world.now),
        Reported(0, 1, world.now, Report(step, {"loss": 0.5}, f"step-{step}"), "vanished"),
    ]
    progress = Progress(world.study, world.stored.values())  # the next operator's: it sees no Pod
    plan = decide(progress, late, world.now)
    assert [(type(action), action.trial.attempt) for action in plan.actions if isinstance(action, StartLeg)] == [
        (StartLeg, 1)
    ]
    assert not [action for action in plan.actions if isinstance(action, SaveStatus)]
    assert progress.trials[0].status.step == 0
    decide(progress, [Reported(0, 1, world.now, Report(step, {"loss": 0.5}, f"step-{step}"), "second")], world.now)
    assert (saved := progress.trials[0].status.checkpoint) is not None
    assert saved.pod == "second"


def test_a_number_whose_result_is_stored_is_not_used_again_where_its_promotion_is_not() -> None:
    world = World(
        study(parallelism=1, limits={"trials": 3}), lambda trial, _step: -trial.index, lose_at=frozenset([11])
    )
    recover = world.recover

    def with_nothing_left() -> None:
        assert [(result.budget, result.attempt) for result in world.stored[2].status.rungs] == [(1, 1)]
        assert world.stored[2].spec.budget == 1
        world.attempts.clear()
        world.timeline.clear()
        recover()

    world.recover = with_nothing_left  # type: ignore[method-assign]
    world.run()
    assert world.restarts == 1
    assert world.started[2:4] == [(2, 1), (2, 2)]
    assert world.stored[2].status.faults == 0

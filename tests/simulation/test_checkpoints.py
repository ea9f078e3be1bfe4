"""A trial that does not go on from the checkpoint it was given says so where people look, and makes no progress."""

import pytest

from halvard.decide import decide
from halvard.events import Ended, Event, Reported, Started
from halvard.plan import Announce
from halvard.progress import Progress
from halvard.trial import SavedCheckpoint, Trial, TrialSpec, TrialStatus
from halvard_trainer.reports import Report
from simulation.world import EPOCH, EVICTED, study

NOT_USED = "its checkpoint of step 4 was not used: attempt 2 first reported at step 3"


def told(*steps: int, saved_by: int = 1, resumable: bool = True) -> tuple[list[str], str]:
    """The warnings, and the trial's message, once the second attempt of a trial with step 4 saved has reported."""
    checkpoint = SavedCheckpoint(name="step-4", step=4, attempt=saved_by)
    spec = TrialSpec(index=0, budget=9, parameters={"x": 0.5})
    trial = Trial(name="s-0000", spec=spec, status=TrialStatus(attempt=2, checkpoint=checkpoint))
    progress = Progress(study(), [trial], {(0, 2): True}, resumable=resumable)
    reports = [Reported(0, 2, EPOCH, Report(step, {"loss": 0.5}, f"step-{step}")) for step in steps]
    actions = [action for report in reports for action in decide(progress, [report], EPOCH).actions]
    warnings = [f"{a.reason}: {a.message}" for a in actions if isinstance(a, Announce) and a.kind == "Warning"]
    return warnings, progress.trials[0].status.message


def test_it_is_said_once_and_stays_while_the_attempt_runs() -> None:
    assert told(3, 4, 5) == ([f"CheckpointNotUsed: s-0000: {NOT_USED}"], NOT_USED)


@pytest.mark.parametrize("step", [5, 8])
def test_a_trial_that_goes_on_from_it_or_from_a_later_one_has_nothing_to_say(step: int) -> None:
    assert told(step) == ([], "")


def test_its_own_checkpoint_is_none_that_it_was_given() -> None:
    assert told(3, saved_by=2) == ([], "")


def test_where_nothing_outlives_a_pod_nothing_is_missed() -> None:
    assert told(3, resumable=False) == ([], "")


@pytest.mark.parametrize("folded", [False, True], ids=["one operator", "another after each turn"])
def test_starting_over_again_and_again_is_no_progress_and_ends(*, folded: bool) -> None:
    spec = study(limits={"trials": 1, "retries": 2}, scheduler={"none": {"budget": 9}})
    progress, now = Progress(spec, resumable=True), EPOCH
    decide(progress, [], now)
    for attempt, furthest in enumerate([5, 3, 4], start=1):
        steps = range(1, furthest + 1)
        events: list[Event] = [
            Started(0, attempt, now),
            *(Reported(0, attempt, now + step, Report(step, {"loss": 1.0}, f"step-{step}")) for step in steps),
            Ended(0, attempt, now + 9, EVICTED),
        ]
        decide(progress, events, now + 9)
        now += 600
        if folded:
            progress = Progress(progress.study, progress.trials.values(), resumable=True)
        decide(progress, [], now)
    status = progress.trials[0].status
    assert (status.state, status.attempt, status.retries, status.furthest) == ("Failed", 3, 3, 5)
    assert status.message.startswith("RetriesExhausted: 3 times in a row without progress")

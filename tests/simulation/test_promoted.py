"""How an attempt ends that was promoted where it runs: whether it had left before it could hear of that, or failed."""

from dataclasses import replace

import pytest

from halvard.decide import decide
from halvard.events import Ended, Event, Fault, Reported, Started
from halvard.plan import Announce, SaveSpec, StartLeg
from halvard.progress import Progress
from halvard.study import Study
from halvard.trial import Trial
from halvard_trainer.reports import Report
from simulation.world import EPOCH, EVICTED, LEFT, study

OOM = Fault("OOMKilled", "the trainer used more memory than it may", counted=True, exit_code=137)
EXITED = Fault("NonZeroExit", "exit code 7", counted=True, exit_code=7)
FAIL_TRIAL = [{"action": "FailTrial", "onExitCodes": {"operator": "In", "values": [7]}}]


def promoted(spec: Study) -> Progress:
    """A study whose third trial goes on to the second rung, in its first attempt."""
    progress = Progress(spec)
    decide(progress, [], EPOCH)
    for index, loss in enumerate([0.5, 0.4, 0.3]):
        now = EPOCH + 10.0 * (index + 1)
        told: list[Event] = [
            Started(index, 1, now - 9, 1.0, "a"),
            Reported(index, 1, now, Report(1, {"loss": loss}, "step-1")),
        ]
        plan = decide(progress, told, now)
    assert [action.hot for action in plan.actions if isinstance(action, SaveSpec)] == [True]
    return progress


def ended(progress: Progress, fault: Fault, attempt: int = 1) -> tuple[Trial, list[str], tuple[Fault, ...]]:
    """An attempt ends an hour later: its trial, what people are told, and the faults."""
    plan = decide(progress, [Ended(2, attempt, EPOCH + 3600, fault, "a")], EPOCH + 3600)
    said = [action.message for action in plan.actions if isinstance(action, Announce) and action.kind == "Warning"]
    return progress.trials[2], said, plan.faults


def one_at_a_time() -> Study:
    return study(parallelism=1, limits={"trials": 9})


def test_one_that_left_in_peace_goes_on_in_the_next_attempt_and_nobody_is_to_blame() -> None:
    trial, said, faults = ended(promoted(one_at_a_time()), LEFT)
    assert (trial.status.state, trial.status.attempt, trial.status.message) == (
        "Pending",
        2,
        "it ended before the verdict",
    )
    assert (trial.status.faults, said, faults) == (0, [], ())


def test_a_fault_of_the_infrastructure_is_one_like_any_other() -> None:
    trial, said, faults = ended(promoted(one_at_a_time()), EVICTED)
    assert (trial.status.state, trial.status.faults, trial.status.retries) == ("Pending", 1, 1)
    assert (said, faults) == (["s-0002: Evicted: the node was low on memory"], (EVICTED,))


def test_one_of_the_configuration_fails_the_trial() -> None:
    trial, said, faults = ended(promoted(one_at_a_time()), OOM)
    assert (trial.status.state, trial.status.exit_code, len(trial.status.rungs)) == ("Failed", 137, 1)
    assert (said, faults) == ([f"s-0002: OOMKilled: {OOM.message}"], (OOM,))


def test_an_exit_code_may_be_of_its_way_out_after_the_result_and_is_told_and_let_off_once() -> None:
    progress = promoted(one_at_a_time())
    trial, said, faults = ended(progress, EXITED)
    assert (trial.status.state, trial.status.faults, trial.status.retries) == ("Pending", 1, 1)
    assert said == ["s-0002: NonZeroExit: exit code 7, after its result"]
    assert faults == (replace(EXITED, counted=False, message="exit code 7, after its result"),)
    again = decide(progress, [], EPOCH + 3700)
    assert next(action.trial.attempt for action in again.actions if isinstance(action, StartLeg)) == 2
    assert ended(progress, EXITED, attempt=2)[0].status.state == "Failed"


def test_what_the_user_says_of_an_exit_code_holds_here_too() -> None:
    spec = study(parallelism=1, limits={"trials": 9}, failurePolicy={"rules": FAIL_TRIAL})
    assert ended(promoted(spec), EXITED)[0].status.state == "Failed"


@pytest.mark.parametrize("folded", [False, True], ids=["one operator", "another"])
def test_one_that_had_trained_on_did_not_leave_before_the_verdict(*, folded: bool) -> None:
    progress = promoted(one_at_a_time())
    decide(progress, [Reported(2, 1, EPOCH + 60, Report(2, {"loss": 0.3}, "step-2"))], EPOCH + 60)
    if folded:
        progress = Progress(progress.study, progress.trials.values(), {(2, 1): True})
        decide(progress, [Started(2, 1, EPOCH + 21, 1.0, "a")], EPOCH + 70)
    trial, _, faults = ended(progress, LEFT)
    assert (trial.status.state, faults) == ("Failed", (LEFT,))


@pytest.mark.parametrize("step", [0, 2])
def test_whether_it_had_reported_is_known_to_the_next_operator(step: int) -> None:
    progress = Progress(study(scheduler={"none": {"budget": 9}}), resumable=False)
    decide(progress, [], EPOCH)
    told: list[Event] = [Started(0, 1, EPOCH, 1.0, "a")]
    if step:
        told.append(Reported(0, 1, EPOCH + 1, Report(step, {"loss": 0.5})))
    decide(progress, told, EPOCH + 1)
    again = Progress(progress.study, progress.trials.values(), {(0, 1): True}, resumable=False)
    lost = Ended(0, 1, EPOCH + 60, Fault("NodeLost", "NodeLost", counted=False), "a")
    decide(again, [Started(0, 1, EPOCH, 1.0, "a"), lost], EPOCH + 60)
    assert again.trials[0].status.retries == 1
    assert ([trial for _, trial in again.barren], again.nodes.known["a"].lost()) == (
        ([], set()) if step else ([0], {0})
    )

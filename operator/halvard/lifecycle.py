"""The life of one trial: each function is one transition, from a Trial to the Trial it becomes. Pure."""

import math
from datetime import UTC, datetime

from halvard.events import Fault
from halvard.trial import CurvePoint, Lost, RungResult, SavedCheckpoint, Trial, TrialSpec, TrialState
from halvard_trainer.reports import Report

CURVE_POINTS = 20
MESSAGE_LENGTH = 512


def new_trial(study: str, spec: TrialSpec) -> Trial:
    """A trial that was just decided on, with its name."""
    return Trial(name=f"{study}-{spec.index:04d}", spec=spec)


def started(trial: Trial) -> Trial:
    """Its attempt runs."""
    return _with_status(trial, state="Running", message="")


def reported(trial: Trial, report: Report, objective: str, interval: int | None = None, *, pod: str = "") -> Trial:
    """It made progress: the step, the curve, and the checkpoint to come back to, which this Pod wrote.

    The curve is thinned. With an `interval`, where reports are decided on, it keeps the result and all reports at
    multiples of it: the first of each step, and none from before the last, as an attempt that runs again may make.
    """
    status = trial.status
    message = status.message if status.state == "Running" else ""
    curve = status.curve
    if objective in report.metrics:
        point = CurvePoint(step=report.step, value=finite(report.metrics[objective]))
        if interval is None:
            curve = _thinned((*(p for p in curve if p.step < report.step), point))
        elif report.step % interval == 0 or report.step >= trial.spec.budget:
            curve = (*curve, point) if report.step > (curve[-1].step if curve else 0) else curve
    checkpoint, furthest = status.checkpoint, status.furthest
    if report.checkpoint:
        checkpoint = SavedCheckpoint(name=report.checkpoint, step=report.step, attempt=status.attempt, pod=pod)
        furthest = max(furthest, report.step)
    changes = {"step": report.step, "curve": curve, "checkpoint": checkpoint, "furthest": furthest}
    return _with_status(trial, state="Running", message=message, **changes)


def fell_back(trial: Trial, step: int) -> str:
    """What to tell people where an attempt's first report, of this step, comes before its checkpoint; else nothing."""
    given = trial.status.checkpoint
    if given is None or given.attempt == trial.attempt or step > given.step:
        return ""
    return f"its checkpoint of step {given.step} was not used: attempt {trial.attempt} first reported at step {step}"


def noted(trial: Trial, message: str) -> Trial:
    """Its attempt runs, and there is something to say about that."""
    return _with_status(trial, state="Running", message=message)


def completed_rung(
    trial: Trial, value: float, seconds: float, gpu_seconds: float, at: float, *, order: int = 0
) -> Trial:
    """It has a result at its budget: now it waits for the decision on it. `order`: the result's place in the study."""
    result = RungResult(
        budget=trial.spec.budget,
        value=finite(value),
        step=trial.status.step,
        attempt=trial.attempt,
        seconds=round(seconds, 3),
        gpu_seconds=round(gpu_seconds, 3),
        at=datetime.fromtimestamp(at, UTC),
        order=order,
        decided=trial.spec.order,
        decision=trial.spec.decision,
        control=trial.spec.control,
    )
    return _with_status(trial, rungs=(*trial.status.rungs, result), retries=0)


def promoted(trial: Trial, decided: TrialSpec) -> Trial:
    """It may train on, up to a higher budget."""
    return trial.model_copy(update={"spec": decided})


def waiting(trial: Trial) -> Trial:
    """It was promoted after its attempt had left, and waits for a new one."""
    return _with_status(trial, state="Pending", message="promoted, waiting for its Pod to run", step=0)


def paused(trial: Trial, message: str) -> Trial:
    """It waits at its rung, and its attempt is over: raising the number already fences the Pod that is to leave."""
    return _with_status(trial, state="Paused", message=message, attempt=trial.attempt + 1)


def requeued(trial: Trial, message: str, *, fault: bool) -> Trial:
    """Its leg has to run again in a new attempt, and nothing is held against the trial."""
    return _with_status(
        trial,
        state="Pending",
        message=message,
        attempt=trial.attempt + 1,
        step=0,
        faults=trial.status.faults + fault,
    )


def retried(trial: Trial) -> Trial:
    """Once more in a row, its leg came to nothing through no fault of its own."""
    return _with_status(trial, retries=trial.status.retries + 1)


def has_reported(trial: Trial, attempt: int) -> bool:
    """Whether something is known that this attempt reported."""
    status = trial.status
    if attempt == status.attempt and status.step and status.state != "Paused":  # then the step is of the one before
        return True
    by = {result.attempt for result in status.rungs} | ({status.checkpoint.attempt} if status.checkpoint else set())
    return attempt in by


def did_nothing_more(trial: Trial) -> bool:
    """Whether its attempt made the latest result itself, and has reported nothing beyond it."""
    last = trial.status.rungs[-1] if trial.status.rungs else None
    return last is not None and last.attempt == trial.attempt and trial.status.step <= last.step


def saved_more(trial: Trial, report: Report) -> bool:
    """Whether this report brings a checkpoint beyond all that there were."""
    last = trial.status.checkpoint  # which may be all that an earlier operator stored
    return bool(report.checkpoint) and report.step > max(trial.status.furthest, last.step if last else 0)


def progressed(trial: Trial) -> Trial:
    """It came further than before."""
    return _with_status(trial, retries=0) if trial.status.retries else trial


def ended(trial: Trial, state: TrialState, message: str, *, order: int = 0, exit_code: int | None = None) -> Trial:
    """It is over: `state` is one of Complete, Stopped, Failed. `order`: the place of that in the study."""
    return _with_status(trial, state=state, message=message, order=order, exit_code=exit_code)


def lost(trial: Trial, seconds: float, gpu_seconds: float) -> Trial:
    """Time went by without a result."""
    before = trial.status.lost
    total = Lost(seconds=round(before.seconds + seconds, 3), gpu_seconds=round(before.gpu_seconds + gpu_seconds, 3))
    return _with_status(trial, lost=total)


def describe(fault: Fault) -> str:
    """A fault in one line."""
    return f"{fault.reason}: {fault.message}"


def finite(value: float) -> float | None:
    """The value as it is stored: JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _thinned(curve: tuple[CurvePoint, ...]) -> tuple[CurvePoint, ...]:
    """The curve with every second point left out once it is too long; the first and the last always stay."""
    if len(curve) <= CURVE_POINTS:
        return curve
    return (*curve[:-1:2], curve[-1])


def _with_status(trial: Trial, **changes: object) -> Trial:
    message = changes.get("message")
    if isinstance(message, str):
        changes["message"] = message[:MESSAGE_LENGTH]
    return trial.model_copy(update={"status": trial.status.model_copy(update=changes)})

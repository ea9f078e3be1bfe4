"""Rules about the Study's status: it says what the Trials say."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from halvard.progress import Progress
from halvard.status import study_status
from halvard.trial import Trial
from history.lives import ladder
from history.records import History, Violation

CLOCK = {"used"}  # how much of a limit is used may be read off the clock
COUNTED = {"trials", "best", "highest_rung", "training_hours", "gpu_hours"}
ROUNDING = 0.0002  # hours: of the status, and of each trial's seconds


def standing(history: History) -> Iterator[Violation]:
    """At the end, counts, best trial, rungs and hours are those of the Trials; all else is what a restart would say."""
    if not history.over:
        return
    study = history.study
    told = study.status.model_dump()
    counted = {**_counted(history), "rungs": _rungs(history)}
    rungs = [{key: rung[key] for key in ("budget", "completed", "promoted", "running")} for rung in told["rungs"]]
    for field, value in counted.items():
        said = rungs if field == "rungs" else told[field]
        if said != value:
            yield Violation("status", None, f"{field} is {said}; the trials say {value}")
    for field, gpu in (("training_hours", False), ("gpu_hours", True)):
        hours = _hours(history.trials, gpu=gpu)
        if any(abs(told[field][outcome] - hours[outcome]) > ROUNDING for outcome in told[field]):
            yield Violation("status", None, f"{field} is {told[field]}; the trials say {hours}")
    again = study_status(Progress(study, history.trials), datetime.now(UTC).timestamp()).model_dump()
    for field in told.keys() - CLOCK - COUNTED:
        if told[field] != again[field]:
            yield Violation("status", None, f"{field} is {told[field]}; after a restart it is {again[field]}")


def _counted(history: History) -> dict[str, Any]:
    states = Counter(trial.status.state.lower() for trial in history.trials)
    names = ("pending", "running", "paused", "complete", "stopped", "failed")
    sign = 1 if history.study.spec.objective.goal == "minimize" else -1
    results = [
        (-r.budget, sign * r.value, t.index, r.budget, t)
        for t in history.trials
        for r in t.status.rungs
        if r.value is not None
    ]
    best = None
    if results := [*results, *_converged(history, sign)]:
        _, score, _, budget, trial = min(results, key=lambda result: result[:3])
        best = {
            "trial": trial.name,
            "value": sign * score,
            "budget": budget,
            "parameters": dict(trial.spec.parameters),
        }
    return {
        "trials": {"total": len(history.trials)} | {name: states[name] for name in names},
        "best": best,
        "highest_rung": max((trial.done for trial in history.trials), default=0),
    }


def _converged(history: History, sign: int) -> Iterator[tuple[int, float, int, int, Trial]]:
    """What patience stopped at a finite value is held to have trained in full, with the best value it had."""
    if history.study.spec.scheduler.patience is None:
        return
    for trial in history.trials:
        curve = trial.status.curve
        if trial.status.message.startswith("stopped: no improvement") and curve and curve[-1].value is not None:
            score, step = min((sign * point.value, point.step) for point in curve if point.value is not None)
            yield -trial.spec.budget, score, trial.index, step, trial


def _rungs(history: History) -> list[dict[str, int]]:
    completed = Counter(result.budget for trial in history.trials for result in trial.status.rungs)
    went_on = Counter(r.budget for trial in history.trials for r in trial.status.rungs if r.budget < trial.spec.budget)
    return [
        {"budget": budget, "completed": completed[budget], "promoted": went_on[budget], "running": 0}
        for budget in ladder(history.study.spec.scheduler)
    ]


def _hours(trials: tuple[Trial, ...], *, gpu: bool) -> dict[str, float]:
    """Hours by what became of them, counted from the Trials."""
    hours = dict.fromkeys(("promoted", "complete", "paused", "failed", "lost"), 0.0)
    for trial in trials:
        status = trial.status
        for result in status.rungs:
            ended = {"Complete": "complete", "Failed": "failed"}.get(status.state, "paused")
            outcome = "promoted" if result.budget < trial.spec.budget else ended
            hours[outcome] += (result.gpu_seconds if gpu else result.seconds) / 3600
        nothing = {"Failed": "failed", "Stopped": "paused"}.get(status.state, "lost")
        hours[nothing] += (status.lost.gpu_seconds if gpu else status.lost.seconds) / 3600
    return {"total": sum(hours.values())} | hours

"""Rules about the Study's status and its metrics: they say what the Trials say, counted anew."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, NamedTuple

from halvard.progress import Progress
from halvard.status import study_status
from halvard.trial import Trial
from history.lives import ladder
from history.records import Decided, History, Violation, timeline

CLOCK = {"used"}  # how much of a limit is used may be read off the clock
COUNTED = {"state", "trials", "best", "highest_rung", "rungs", "search", "training_hours", "gpu_hours"}
ROUNDING = 0.0002  # hours: of the status, and of each trial's seconds
SECONDS = 0.01  # of the metrics: they are sums of thousandths
TAU = 0.001  # it is told with three decimals
MESSAGE = 1024  # characters of a decision that are told
OUTCOMES = ("promoted", "complete", "paused", "failed", "lost")
COMPARED = 300  # trials at most in a tau of the status


class Spent(NamedTuple):
    """Time of one trial; `rung` is 0 where it brought no result."""

    rung: int
    outcome: str
    seconds: float
    gpu_seconds: float


def standing(history: History) -> Iterator[Violation]:
    """At the end, all that can be counted is what the Trials say, and all else what a restart would say."""
    if not history.over:
        return
    study = history.study
    told = study.status.model_dump()
    for field, value in _counted(history).items():
        if told[field] != value:
            yield Violation("status", None, f"{field} is {told[field]}; the trials say {value}")
    yield from _told_of_rungs(history)
    hours = _hours(history.trials)
    for field, by_outcome in (("training_hours", hours[0]), ("gpu_hours", hours[1])):
        if any(abs(told[field][outcome] - by_outcome[outcome]) > ROUNDING for outcome in told[field]):
            yield Violation("status", None, f"{field} is {told[field]}; the trials say {by_outcome}")
    for field, count in _limits(history).items():
        if (used := told["used"].get(field, "")).partition("/")[0] != str(count):
            yield Violation("status", None, f"used.{field} is {used!r}; the trials say {count}")
    again = study_status(Progress(study, history.trials), datetime.now(UTC).timestamp()).model_dump()
    for field in told.keys() - CLOCK - COUNTED:
        if told[field] != again[field]:
            yield Violation("status", None, f"{field} is {told[field]}; after a restart it is {again[field]}")


def metrics(history: History) -> Iterator[Violation]:
    """At the end, `halvard_gpu_seconds` is what the Trials say, by rung and outcome."""
    if history.scraped is None or not history.over:
        return
    right = defaultdict[tuple[int, str], float](float)
    for spent in (spent for trial in history.trials for spent in _spent(trial)):
        right[spent.rung, spent.outcome] += spent.gpu_seconds
    for series in sorted(right.keys() | history.scraped.keys()):
        said = history.scraped.get(series, 0.0)
        if abs(said - right[series]) > SECONDS:
            yield Violation("metrics", None, f"halvard_gpu_seconds{series} is {said}; the trials say {right[series]}")


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
    true = {condition.type for condition in history.study.status.conditions if condition.status == "True"}
    return {
        "state": "Complete" if "Complete" in true else "Failed" if "Failed" in true else "Running",
        "trials": {"total": len(history.trials)} | {name: states[name] for name in names},
        "best": best,
        "highest_rung": max((trial.done for trial in history.trials), default=0),
        "search": _search(history),
    }


def _search(history: History) -> dict[str, str]:
    """The words of the latest decision on a new trial, and of the latest promotion."""
    decided = [event for event in timeline(history.trials) if isinstance(event, Decided)]
    new, promotions = ([event.why for event in decided if bool(event.start) == on] for on in (False, True))
    return {"sampler": "".join(new[-1:])[:MESSAGE], "scheduler": "".join(promotions[-1:])[:MESSAGE]}


def _limits(history: History) -> dict[str, int]:
    """How much is used of the limits that no clock decides."""
    failed = {"failedTrials": sum(trial.status.state == "Failed" for trial in history.trials)}
    return failed if history.study.spec.limits.trials is None else failed | {"trials": len(history.trials)}


def _converged(history: History, sign: int) -> Iterator[tuple[int, float, int, int, Trial]]:
    """What patience stopped at a finite value is held to have trained in full, with the best value it had."""
    if history.study.spec.scheduler.patience is None:
        return
    for trial in history.trials:
        curve = trial.status.curve
        if trial.status.message.startswith("stopped: no improvement") and curve and curve[-1].value is not None:
            score, step = min((sign * point.value, point.step) for point in curve if point.value is not None)
            yield -trial.spec.budget, score, trial.index, step, trial


def _told_of_rungs(history: History) -> Iterator[Violation]:
    """What the status says of each rung, and how it ranks trials as a higher one does."""
    told = history.study.status.rungs
    right = _rungs(history)
    said = [rung.model_dump(include=set(right[0])) for rung in told]
    if said != right:
        yield Violation("status", None, f"rungs is {said}; the trials say {right}")
    values = defaultdict[int, dict[int, float]](dict)
    for trial in history.trials:
        for result in trial.status.rungs:
            if result.value is not None:
                values[result.budget][trial.index] = result.value
    for rung in told:
        for agreement in rung.agreement:
            here, there = values[rung.budget], values[agreement.budget]
            pairs = [(here[index], there[index]) for index in here.keys() & there.keys()]
            tau = agreement.tau if len(pairs) > COMPARED else _tau(pairs)
            if agreement.trials != len(pairs) or abs(agreement.tau - tau) > TAU:
                yield Violation("status", None, f"{rung.budget}: {agreement}; the trials say {tau} of {len(pairs)}")


def _rungs(history: History) -> list[dict[str, int]]:
    results = [(trial, result) for trial in history.trials for result in trial.status.rungs]
    completed = Counter(result.budget for _, result in results)
    went_on = Counter(result.budget for trial, result in results if result.budget < trial.spec.budget)
    not_finite = Counter(result.budget for _, result in results if result.value is None)
    failed = Counter(trial.spec.budget for trial in history.trials if trial.status.state == "Failed")
    return [
        {
            "budget": budget,
            "completed": completed[budget],
            "promoted": went_on[budget],
            "running": 0,
            "not_finite": not_finite[budget],
            "failed": failed[budget],
        }
        for budget in ladder(history.study.spec.scheduler)
    ]


def _tau(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-b by its definition: concordant less discordant pairs, by the geometric mean of those untied."""
    signs = [(_sign(a - c), _sign(b - d)) for (a, b), (c, d) in combinations(pairs, 2)]
    untied = sum(abs(one) for one, _ in signs) * sum(abs(other) for _, other in signs)
    return sum(one * other for one, other in signs) / math.sqrt(untied) if untied else 0.0


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _hours(trials: Iterable[Trial]) -> tuple[dict[str, float], dict[str, float]]:
    """Hours of training and of GPUs by what became of them, counted from the Trials."""
    training, on_gpus = ({"total": 0.0} | dict.fromkeys(OUTCOMES, 0.0) for _ in range(2))
    for spent in (spent for trial in trials for spent in _spent(trial)):
        for outcome in ("total", spent.outcome):
            training[outcome] += spent.seconds / 3600
            on_gpus[outcome] += spent.gpu_seconds / 3600
    return training, on_gpus


def _spent(trial: Trial) -> Iterator[Spent]:
    """All time of a trial by what became of it: it went on, finished, failed, was not taken further, or was lost."""
    status = trial.status
    for result in status.rungs:
        ended = {"Complete": "complete", "Failed": "failed"}.get(status.state, "paused")
        outcome = "promoted" if result.budget < trial.spec.budget else ended
        yield Spent(result.budget, outcome, result.seconds, result.gpu_seconds)
    nothing = {"Failed": "failed", "Stopped": "paused"}.get(status.state, "lost")
    yield Spent(0, nothing, status.lost.seconds, status.lost.gpu_seconds)

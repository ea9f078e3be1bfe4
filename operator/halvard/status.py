"""Where a study stands: a pure function of its trials, whose size does not grow with them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from halvard.control import control_status
from halvard.diagnosis import FORETELL, Diagnosis
from halvard.ending import deadline
from halvard.progress import Progress
from halvard.study_status import (
    BestTrial,
    Condition,
    ControlStatus,
    Hours,
    RungStatus,
    Search,
    StudyState,
    StudyStatus,
    TrialCounts,
)
from halvard.trial import Trial

MESSAGE_LENGTH = 1024


def study_status(progress: Progress, now: float) -> StudyStatus:
    """The whole status, computed anew; conditions keep their transition times. `now`: seconds since the epoch."""
    trials = list(progress.trials.values())
    best = best_trial(progress)
    training, gpu = _hours(trials)
    diagnosis = Diagnosis(progress.study.spec, progress.tuner.budgets, trials)
    return StudyStatus(
        state=_state(progress),
        observed_generation=progress.study.generation,
        start_time=_time(progress.started_at),
        completion_time=_time(progress.ended_at),
        conditions=tuple(_conditions(progress, diagnosis, now)),
        trials=_counts(trials),
        best=best,
        highest_rung=max((trial.done for trial in trials), default=0),
        rungs=_rungs(progress, trials, diagnosis),
        search=_search(trials),
        control=_control(progress, trials),
        training_hours=training,
        gpu_hours=gpu,
        used=_used(progress, now),
    )


def best_trial(progress: Progress) -> BestTrial | None:
    """The best finite result of the highest rung that has one: values of different budgets do not compare.

    A trial that was stopped because it had converged is held to have trained in full, with the best value it had.
    """
    sign = progress.study.spec.objective.sign
    candidates = (
        (-result.budget, sign * result.value, trial.index, result.budget)
        for trial in progress.trials.values()
        for result in trial.status.rungs
        if result.value is not None
    )
    first = min([*candidates, *_converged(progress)], default=None)
    if first is None:
        return None
    trial = progress.trials[first[2]]
    return BestTrial(trial=trial.name, value=sign * first[1], budget=first[3], parameters=trial.spec.parameters)


def _converged(progress: Progress) -> Iterator[tuple[int, float, int, int]]:
    """Those that had converged, as `best_trial` compares them; their budget is the step of their best value."""
    for index, trial in progress.trials.items():
        if trial.status.state == "Stopped" and (value := progress.tuner.converged(index)) is not None:
            step = next(point.step for point in trial.status.curve if point.value == value)
            yield -trial.spec.budget, progress.study.spec.objective.sign * value, index, step


def _state(progress: Progress) -> StudyState:
    if progress.outcome:
        return "Complete" if progress.outcome.condition == "Complete" else "Failed"
    if progress.suspended:
        return "Suspended"
    return "Running" if progress.trials else "Pending"


def _counts(trials: list[Trial]) -> TrialCounts:
    counts = dict.fromkeys(("pending", "running", "paused", "complete", "stopped", "failed"), 0)
    for trial in trials:
        counts[trial.status.state.lower()] += 1
    return TrialCounts(total=len(trials), **counts)


@dataclass(slots=True)
class Tally:
    """The counts of one rung."""

    completed: int = 0
    promoted: int = 0
    running: int = 0
    not_finite: int = 0
    failed: int = 0


def _rungs(progress: Progress, trials: list[Trial], diagnosis: Diagnosis) -> tuple[RungStatus, ...]:
    tallies = {budget: Tally() for budget in progress.tuner.budgets}
    for trial in trials:
        for result in trial.status.rungs:
            tally = tallies[result.budget]
            tally.completed += 1
            tally.promoted += trial.spec.budget > result.budget
            tally.not_finite += result.value is None
        tallies[trial.spec.budget].running += trial.assigned
        tallies[trial.spec.budget].failed += trial.status.state == "Failed"
    return tuple(
        RungStatus(budget=budget, **asdict(tally), agreement=diagnosis.agreement(budget))
        for budget, tally in tallies.items()
    )


def _search(trials: list[Trial]) -> Search:
    """The decisions on the latest new trial and the latest promotion; a trial's spec has the latest on that trial."""
    new = promotion = (0, "")
    for trial in trials:
        spec, results = trial.spec, trial.status.rungs
        if not results:
            new = max(new, (spec.order, spec.decision))
            continue
        first = results[0]
        if first.decided > new[0]:
            new = (first.decided, first.decision)
        if spec.order > promotion[0] and spec.budget > first.budget:
            promotion = (spec.order, spec.decision)
    return Search(sampler=new[1][:MESSAGE_LENGTH], scheduler=promotion[1][:MESSAGE_LENGTH])


def _control(progress: Progress, trials: list[Trial]) -> ControlStatus | None:
    """What the controls tell, where there are any."""
    spec = progress.study.spec
    return control_status(spec.scheduler.asha, spec.objective.goal, trials) if spec.scheduler.asha else None


@dataclass(frozen=True, slots=True)
class Spent:
    """Time of one trial that came to one end; `rung` is 0 where it brought no result."""

    rung: int
    outcome: Literal["promoted", "complete", "paused", "failed", "lost"]
    seconds: float
    gpu_seconds: float


def time_spent(trial: Trial) -> Iterator[Spent]:
    """All time of a trial by what became of it: it went on, finished, went no further, failed, or a fault took it.

    Time without a result counts as failed where the trial failed, as paused where it was stopped, else as lost.
    """
    failed = trial.status.state == "Failed"
    for result in trial.status.rungs:
        outcome: Literal["promoted", "complete", "paused", "failed"] = "failed" if failed else "paused"
        if trial.spec.budget > result.budget:
            outcome = "promoted"
        elif trial.status.state == "Complete":
            outcome = "complete"
        yield Spent(result.budget, outcome, result.seconds, result.gpu_seconds)
    without: Literal["paused", "failed", "lost"] = "failed" if failed else "lost"
    if trial.status.state == "Stopped":
        without = "paused"
    yield Spent(0, without, trial.status.lost.seconds, trial.status.lost.gpu_seconds)


def _hours(trials: list[Trial]) -> tuple[Hours, Hours]:
    """Training hours and GPU-hours by outcome."""
    seconds = dict.fromkeys(("promoted", "complete", "paused", "failed", "lost"), 0.0)
    gpu_seconds = dict(seconds)
    for trial in trials:
        for spent in time_spent(trial):
            seconds[spent.outcome] += spent.seconds
            gpu_seconds[spent.outcome] += spent.gpu_seconds
    return _as_hours(seconds), _as_hours(gpu_seconds)


def _as_hours(seconds: dict[str, float]) -> Hours:
    hours = {outcome: round(value / 3600, 4) for outcome, value in seconds.items()}
    return Hours(total=round(sum(seconds.values()) / 3600, 4), **hours)


def _used(progress: Progress, now: float) -> dict[str, str]:
    """Progress against each limit that is set, as text."""
    limits = progress.study.spec.limits
    used = {"failedTrials": f"{len(progress.failed)}/{limits.failed_trials}"}
    if limits.trials is not None:
        used["trials"] = f"{len(progress.trials)}/{limits.trials}"
    if limits.gpu_hours is not None:
        used["gpuHours"] = f"{progress.gpu_seconds(now) / 3600:.2f}/{limits.gpu_hours:g}"
    if (end := deadline(progress)) is not None and progress.started_at is not None:
        minutes = (min(progress.ended_at or now, end) - progress.started_at) / 60
        used["duration"] = f"{minutes:.0f}m/{limits.duration}"
    return used


def _conditions(progress: Progress, diagnosis: Diagnosis, now: float) -> Iterator[Condition]:
    outcome, before = progress.outcome, progress.study.status.conditions
    if outcome:
        yield _condition(progress, outcome.condition, outcome.reason, outcome.message, now, true=True)
    trouble = _trouble(progress)
    misled = diagnosis.alarm(raised=any(c.type == "LateBloomers" and c.status == "True" for c in before))
    facts: list[tuple[Literal["Suspended", "Degraded", "LateBloomers"], bool, str, str]] = [
        ("Suspended", progress.suspended, "SuspendSet" if progress.suspended else "SuspendCleared", "spec.suspend"),
        ("Degraded", trouble is not None, *(trouble or ("Recovered", "Pods are created and start"))),
        ("LateBloomers", misled is not None, *(misled or (FORETELL, "more results have shown that early ones do"))),
    ]
    for kind, true, reason, message in facts:
        if true or any(c.type == kind for c in before):
            yield _condition(progress, kind, reason, message, now, true=true)


def _trouble(progress: Progress) -> tuple[str, str] | None:
    """Why Pods cannot be created or cannot start, in the words of whoever refuses them."""
    if progress.outcome:
        return None
    if progress.block and not progress.block.probing:  # else one was taken, and the others wait for room alone
        return progress.block.reason, progress.block.message
    stuck = next((live.stuck for live in progress.live.values() if live.stuck), None)
    return (stuck.reason, stuck.message) if stuck else None


def _condition(
    progress: Progress,
    kind: Literal["Complete", "Failed", "Suspended", "Degraded", "LateBloomers"],
    reason: str,
    message: str,
    now: float,
    *,
    true: bool,
) -> Condition:
    status: Literal["True", "False"] = "True" if true else "False"
    before = next((c for c in progress.study.status.conditions if c.type == kind), None)
    unchanged = before is not None and before.status == status
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:MESSAGE_LENGTH],
        last_transition_time=before.last_transition_time if before and unchanged else datetime.fromtimestamp(now, UTC),
        observed_generation=progress.study.generation,
    )


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0) if seconds is not None else None

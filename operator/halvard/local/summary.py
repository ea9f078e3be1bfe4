"""What a study came to, in the words it ends with (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from halvard.local.display import clock
from halvard.local.narrate import number
from halvard.local.process import Leg
from halvard.study import Study
from halvard.study_status import Agreement, StudyStatus
from halvard.trial import Trial


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: spent on training, and what training every trial to the full budget would have cost (an estimate)."""

    spent: float
    full: float


def costs(trials: Iterable[Trial], max_budget: int) -> Costs:
    """Returns the costs; full training is estimated from the seconds per unit of budget that each trial took so far."""
    spent = full = 0.0
    for trial in trials:
        trained = sum(result.seconds for result in trial.status.rungs)
        spent += trained + trial.status.lost.seconds
        full += _full(trial, trained, max_budget)
    return Costs(spent, full)


def _full(trial: Trial, trained: float, max_budget: int) -> float:
    status = trial.status
    if trial.done:
        return trained / trial.done * max_budget
    if status.state == "Stopped" and status.step:
        return status.lost.seconds / status.step * max_budget
    return status.lost.seconds


def summary(
    study: Study, status: StudyStatus, trials: Iterable[Trial], legs: Iterable[Leg], max_budget: int
) -> list[tuple[str, str]]:
    """Returns the closing words as pairs of a heading and a text."""
    cost = costs(trials, max_budget)
    legs = list(legs)
    hot = sum(len(leg.budgets) - 1 for leg in legs)
    resumed = sum(leg.start > 0 for leg in legs)
    counts = status.trials
    outcome = next((c.message for c in status.conditions if c.type == status.state), "")
    share = f" ({cost.spent / cost.full:.0%})" if cost.full else ""
    ends = (
        f"{counts.total}: {counts.complete} trained to the full budget, {counts.paused} not taken further, "
        f"{counts.stopped} stopped, {counts.failed} failed"
    )
    time = (
        f"{clock(cost.spent)} spent{share} of the {clock(cost.full)} that training every trial to budget {max_budget} "
        f"would have cost (estimated from each trial's own pace, start-up included)"
    )
    return [
        ("study", f"{study.name}: {status.state}{', ' if outcome else ''}{outcome}"),
        *_best(status, study.spec.objective.metric, max_budget),
        ("trials", ends),
        ("training time", time),
        ("promotions", f"{hot} hot (the process went on), {resumed} legs resumed from a checkpoint"),
        *_agreement(status),
        *([("early stopping", status.control.message)] if status.control else []),
        *(("late bloomers", c.message) for c in status.conditions if c.type == "LateBloomers" and c.status == "True"),
    ]


def _best(status: StudyStatus, metric: str, max_budget: int) -> list[tuple[str, str]]:
    best = status.best
    if best is None:
        return [("best", "no trial has a result")]
    full = "the full budget" if best.budget == max_budget else f"budget {best.budget} of {max_budget}"
    parameters = [(f"  {name}", number(value)) for name, value in best.parameters.items()]
    return [("best", f"{metric} {number(best.value)} at {full}, by {best.trial}"), *parameters]


def _agreement(status: StudyStatus) -> list[tuple[str, str]]:
    """How far early results have foretold later ones, and how far to believe that."""
    lines = [
        (f"  {rung.budget} and {other.budget}", _agrees(other)) for rung in status.rungs for other in rung.agreement
    ]
    if not lines:
        return []
    what = "do they put trials in the same order at two budgets? tau is 1 where they do, 0 where chance does"
    caution = (
        "only trials that trained on can be compared, and they were chosen: over all trials, tau is mostly higher "
        "(asha.control lets some of the others train on, too)"
    )
    return [("early results", what), *lines, ("", caution)]


def _agrees(other: Agreement) -> str:
    text = f"tau {other.tau:.2f} ({other.low:.2f} to {other.high:.2f}) over {other.trials} trials"
    if other.low <= 0 <= other.high:
        text += ": it may be chance"
    if other.better is not None:
        better = other.better
        text += f", among the better half of them {better.tau:.2f} ({better.low:.2f} to {better.high:.2f})"
    return text

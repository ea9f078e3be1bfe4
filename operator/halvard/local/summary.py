"""What a study came to, in the words it ends with (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from halvard.local.display import clock
from halvard.local.narrate import number
from halvard.local.process import Leg
from halvard.study import Study, StudyStatus
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
        full += trained / trial.done * max_budget if trial.done else trial.status.lost.seconds
    return Costs(spent, full)


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
    ]


def _best(status: StudyStatus, metric: str, max_budget: int) -> list[tuple[str, str]]:
    best = status.best
    if best is None:
        return [("best", "no trial has a result")]
    full = "the full budget" if best.budget == max_budget else f"budget {best.budget} of {max_budget}"
    parameters = [(f"  {name}", number(value)) for name, value in best.parameters.items()]
    return [("best", f"{metric} {number(best.value)} at {full}, by {best.trial}"), *parameters]

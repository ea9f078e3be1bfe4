"""Schedulers pick who runs next, and how far."""

from collections.abc import Callable

from halvard import scheduler_spec
from halvard.forecast.forecaster import Forecaster
from halvard.schedulers.adaptive import Adaptive
from halvard.schedulers.asha import Asha
from halvard.schedulers.hyperband import Hyperband
from halvard.schedulers.median import Median
from halvard.schedulers.patience import Patience
from halvard.schedulers.scheduler import Scheduler
from halvard.study import StudySpec

__all__ = ["Scheduler", "make_scheduler"]


def make_scheduler(
    spec: StudySpec,
    more_trials: Callable[[], bool],
    forecaster: Forecaster | None = None,
) -> Scheduler:
    """Returns the study's scheduler, which shares `forecaster` with whoever has it too.

    `more_trials` tells whether a trial can still begin. Raises ValueError where `spec.scheduler` names none.
    """
    scheduler, goal = spec.scheduler, spec.objective.goal
    if scheduler.asha is not None:
        return Asha(scheduler.asha, goal, spec.seed)
    if scheduler.hyperband is not None:
        return Hyperband(scheduler.hyperband, goal, more_trials)
    if scheduler.adaptive is not None:
        return Adaptive(scheduler.adaptive, goal, forecaster or Forecaster(spec))
    if scheduler.median is not None:
        return Median(scheduler.median, goal)
    if scheduler.patience is not None:
        return Patience(scheduler.patience, goal)
    if scheduler.none is not None:  # a ladder of one rung, from which nothing is promoted
        return Asha(scheduler_spec.Asha(min_budget=scheduler.none.budget, max_budget=scheduler.none.budget), goal)
    raise ValueError("spec.scheduler names no scheduler")

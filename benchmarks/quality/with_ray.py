"""Ray Tune: the code of its ASHA scheduler, without a Ray cluster around it."""

from collections.abc import Sequence
from types import SimpleNamespace

from ray.tune.schedulers import AsyncHyperBandScheduler

from benchmarks.quality import loop
from benchmarks.quality.loop import Outcome, Work
from benchmarks.quality.problem import Condition, Problem


def run(problem: Problem, condition: Condition, seed: int, *, eta: int) -> Outcome:
    return loop.run(Search(problem, seed, eta), problem, condition)


class Search:
    def __init__(self, problem: Problem, seed: int, eta: int) -> None:
        self._problem = problem
        self._points = enumerate(problem.random_points(seed))
        self._trials: dict[int, SimpleNamespace] = {}
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="step", metric="value", mode="min", max_t=problem.steps, reduction_factor=eta
        )
        self.told_at = range(1, problem.steps + 1)

    def ask(self) -> Work:
        trial, point = next(self._points)
        self._trials[trial] = SimpleNamespace(trial_id=str(trial))  # all that the scheduler looks at
        self._scheduler.on_trial_add(None, self._trials[trial])
        return Work(trial, self._problem.steps, point)

    def trains(self, trial: int, point: Sequence[float]) -> None:
        """Learns nothing from it."""

    def tell(self, trial: int, step: int, value: float) -> int:
        result = {"step": step, "value": self._problem.finite(value)}
        decision = self._scheduler.on_trial_result(None, self._trials[trial], result)
        if decision == AsyncHyperBandScheduler.CONTINUE:
            return self._problem.steps
        self._scheduler.on_trial_remove(None, self._trials.pop(trial))
        return step

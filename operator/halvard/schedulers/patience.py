"""Patience: a trial is stopped once it has not improved for a while, as early stopping within a training is."""

import math

from typing_extensions import override

from halvard import scheduler_spec
from halvard.schedulers.stopping import Stopping
from halvard.study import Goal


class Patience(Stopping):
    """Stops a trial that has not improved by more than `minDelta` for `patience` units of budget.

    An improvement is measured against the last one, so that many small steps count once they add up. The first finite
    value is one; a value that is not finite never is. Until the first, the time counts from the beginning.
    """

    def __init__(self, patience: scheduler_spec.Patience, goal: Goal) -> None:
        """Begins without reports."""
        super().__init__(patience, goal)
        self._patience, self._min_delta = patience.patience, patience.min_delta
        self._improved: dict[int, tuple[float, int]] = {}  # by trial index: the score and step of the last improvement
        self._best: dict[int, float] = {}  # by trial index, the best score
        self._converged: dict[int, float] = {}  # by trial index, the best score of those that were stopped

    @override
    def reason(self, index: int, step: int, score: float) -> str | None:
        """Returns why the trial is to stop at this report."""
        best, since = self._latest(index)
        if best - score > self._min_delta or step - since < self._patience:
            return None
        if best == math.inf:
            return f"no finite value by step {step}; patience is {self._patience}"
        than = f" by more than {self._min_delta:g}" if self._min_delta else ""
        return (
            f"no improvement{than} on {self._sign * best:g}, the value at step {since}, by step {step}; "
            f"patience is {self._patience}"
        )

    @override
    def learn(self, index: int, step: int, score: float) -> None:
        """Takes in a report that counts."""
        self._best[index] = min(score, self._best.get(index, math.inf))
        if score < math.inf and step >= self._grace and self.reason(index, step, score):
            self._converged[index] = self._best[index]
        if self._latest(index)[0] - score > self._min_delta:
            self._improved[index] = score, step

    @override
    def converged(self, index: int) -> float | None:
        """Returns the best value of a trial that was stopped; None where it was not, or at a value not finite."""
        best = self._converged.get(index)
        return None if best is None else self._sign * best

    def _latest(self, index: int) -> tuple[float, int]:
        return self._improved.get(index, (math.inf, 0))

"""What schedulers have in common that may stop a trial at every report."""

import math
from abc import abstractmethod

from typing_extensions import override

from halvard import scheduler_spec
from halvard.schedulers.rung import Rung, Standing
from halvard.schedulers.scheduler import Halving, Promotion, Start, no_rung
from halvard.study import Goal, sign_of
from halvard.trial import Trial


class Stopping(Halving):
    """Every trial sets out for the full budget, the only rung, and a report on the way may be its last.

    Reports count at multiples of `interval`: the first of each step, and none that comes after one of a later step.
    The state is a function of each trial's reports in the order of their steps; how those of several trials were
    interleaved does not matter to it.
    """

    def __init__(self, stopping: scheduler_spec.Stopping, goal: Goal) -> None:
        """Begins without reports."""
        super().__init__(stopping.budgets)
        self._grace, self._interval = stopping.grace, stopping.interval
        self._sign = sign_of(goal)
        self._rung = Rung(stopping.budget, goal)
        self._last: dict[int, int] = {}  # by trial index, the step of the last report that counted

    @override
    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial: its reports, on which was decided already, and its result."""
        for point in trial.status.curve:
            if self._counts(trial.index, point.step):
                self._learn(trial.index, point.step, self._score(point.value))
        super().fold(trial)
        if trial.status.rungs:
            self.reached(trial.index)

    def start(self, index: int) -> Start:  # noqa: ARG002
        """Returns the only bracket and the full budget."""
        return Start(0, self.max_budget)

    @override
    def report(self, index: int, step: int, value: float | None) -> str | None:
        """Takes in a report; returns why the trial is to stop now, None where it goes on or the report does not count.

        None and non-finite values are the worst. Before `grace` nothing is stopped.
        """
        if not self._counts(index, step):
            return None
        score = self._score(value)
        why = self.reason(index, step, score) if step >= self._grace else None
        self._learn(index, step, score)
        return why

    @override
    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; raises ValueError where `budget` is no rung or the trial has a result there."""
        super().record(index, budget, value)
        self.reached(index)

    def promote(self) -> Promotion | None:
        """Returns None: there is no rung to go on to."""
        return None

    @override
    def rung(self, index: int, budget: int) -> Rung:
        """Returns the only rung; raises ValueError for another budget."""
        if budget != self.max_budget:
            raise no_rung(index, budget, self.budgets)
        return self._rung

    @override
    def standing(self, index: int, budget: int) -> Standing:
        """Returns where the trial's result stands now; raises KeyError where there is none."""
        return self.rung(index, budget).standing(index, 0, top=True)

    @abstractmethod
    def reason(self, index: int, step: int, score: float) -> str | None:
        """Returns why the trial is to stop at this report, which is the next that `learn` will take in.

        `score`: the value where lower is better, infinity where it is not finite.
        """

    @abstractmethod
    def learn(self, index: int, step: int, score: float) -> None:
        """Takes in a report that counts."""

    def reached(self, index: int) -> None:
        """Hears that the trial came to the full budget."""

    def _learn(self, index: int, step: int, score: float) -> None:
        self.learn(index, step, score)
        self._last[index] = step

    def _counts(self, index: int, step: int) -> bool:
        return step % self._interval == 0 and self._last.get(index, 0) < step < self.max_budget

    def _score(self, value: float | None) -> float:
        return self._sign * value if value is not None and math.isfinite(value) else math.inf

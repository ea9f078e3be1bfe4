"""ASHA: asynchronous successive halving, promotion type (Li et al., MLSys 2020, arXiv 1810.05934, Algorithm 2)."""

from itertools import accumulate

import numpy as np
from typing_extensions import override

from halvard import scheduler_spec
from halvard.ladder import bracket_sizes, rungs
from halvard.schedulers.rung import Rung, Standing
from halvard.schedulers.scheduler import Halving, Promotion, Start, no_rung
from halvard.seeded import generator
from halvard.study import Goal
from halvard.trial import Trial

_BRACKETS = 0x6272616B  # sets the draws of brackets apart from those of parameters


class Asha(Halving):
    """Asynchronous Hyperband: some brackets of ASHA, of which bracket b begins at rung b; with one bracket, ASHA.

    Every decision costs O(log n) comparisons and a shift inside a list (microseconds at 1e5).
    Where the papers say nothing: the lower trial index wins a tie; a value that is not finite counts as a result, is
    the worst and never goes on; a trial that was withdrawn keeps its places and never goes on either; a new trial's
    bracket is drawn from (seed, index) with the shares that the brackets have in Hyperband; promotions of all brackets
    come before new trials, the highest rung first, then the bracket with the longer ladder. At rungs below `grace`
    every finite result goes on.
    """

    def __init__(self, asha: scheduler_spec.Asha, goal: Goal, seed: int = 0) -> None:
        """Raises ValueError where the budgets make no ladder."""
        super().__init__(rungs(asha.min_budget, asha.max_budget, asha.reduction_factor))
        self._eta, self._grace = asha.reduction_factor, asha.grace
        self._seed = seed
        self._count = asha.brackets
        sizes = bracket_sizes(len(self.budgets), self._eta)[: self._count]
        self._shares = list(accumulate(sizes))
        self._rungs = {(b, budget): Rung(budget, goal) for b in range(self._count) for budget in self.budgets[b:]}
        self._brackets: dict[int, int] = {}  # by trial index, of those that are not in bracket 0

    @override
    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial; raises ValueError where its bracket or a result's budget is none of the study's."""
        bracket = trial.spec.bracket
        if bracket >= self._count:
            raise ValueError(
                f"trial {trial.index} is in bracket {bracket}: the study's brackets are 0 to {self._count - 1}"
            )
        self._enter(trial.index, bracket)
        super().fold(trial)

    def start(self, index: int) -> Start:
        """Returns the bracket drawn for this trial, and its lowest rung."""
        bracket = self._draw(index)
        self._enter(index, bracket)
        return Start(bracket, self.budgets[bracket])

    def promote(self) -> Promotion | None:
        """Returns the first promotion that is due, scanning the rungs from the top down, and holds it for done."""
        for level in reversed(range(len(self.budgets) - 1)):
            budget, above = self.budgets[level : level + 2]
            for bracket in range(min(self._count, level + 1)):
                rung = self._rungs[bracket, budget]
                index = rung.best_waiting(self._withdrawn)
                # only the best that waits can be among those that go on without having been promoted
                if index is not None and rung.place(index) <= self._go_on(rung):
                    rung.promote()
                    return Promotion(index, above, f"promoted: {self.standing(index, budget).sentence()}")
        return None

    @override
    def standing(self, index: int, budget: int) -> Standing:
        """Returns where the trial's result at this rung stands now; raises KeyError where there is none."""
        rung = self.rung(index, budget)
        return rung.standing(
            index,
            self._go_on(rung),
            top=budget == self.max_budget,
            bracket=self._bracket(index) if self._count > 1 else None,
            grace=budget < self._grace,
        )

    @override
    def rung(self, index: int, budget: int) -> Rung:
        """Returns the rung at this budget of the trial's bracket; raises ValueError where it has none."""
        bracket = self._bracket(index)
        rung = self._rungs.get((bracket, budget))
        if rung is None:
            raise no_rung(index, budget, self.budgets[bracket:])
        return rung

    def _go_on(self, rung: Rung) -> int:
        """How many of its results go on."""
        if rung.budget == self.max_budget:
            return 0
        return rung.completed if rung.budget < self._grace else rung.completed // self._eta

    def _bracket(self, index: int) -> int:
        return self._brackets.get(index, 0)

    def _enter(self, index: int, bracket: int) -> None:
        if bracket:
            self._brackets[index] = bracket

    def _draw(self, index: int) -> int:
        if self._count == 1:
            return 0
        ticket = int(generator(self._seed, index, _BRACKETS).integers(self._shares[-1], dtype=np.uint64))
        return next(bracket for bracket, end in enumerate(self._shares) if ticket < end)

"""ASHA: asynchronous successive halving, promotion type (Li et al., MLSys 2020, arXiv 1810.05934, Algorithm 2)."""

from itertools import accumulate, pairwise

import numpy as np
from typing_extensions import override

from halvard import scheduler_spec
from halvard.ladder import bracket_sizes
from halvard.model import LARGEST
from halvard.schedulers.rung import Rung, Standing
from halvard.schedulers.scheduler import Halving, Promotion, Start, no_rung
from halvard.seeded import generator
from halvard.study import Goal
from halvard.trial import Trial

_BRACKETS = 0x6272616B  # sets the draws of brackets apart from those of parameters
_CONTROLS = 0x636F6E74  # and those of trials that go on to see what early stopping loses


class Asha(Halving):
    """Asynchronous Hyperband: some brackets of ASHA, of which bracket b begins at rung b; with one bracket, ASHA.

    Every decision costs O(log n) comparisons and a shift inside a list (microseconds at 1e5).
    Where the papers say nothing: the lower trial index wins a tie; a value that is not finite counts as a result, is
    the worst and never goes on; a trial that was withdrawn keeps its places and never goes on either; a new trial's
    bracket is drawn from (seed, index) with the shares that the brackets have in Hyperband; promotions of all brackets
    come before new trials, the highest rung first, then the bracket with the longer ladder. At rungs below `grace`
    every finite result goes on. With `control`, every round(1 / control)-th promotion goes to a trial of the same rung
    that is not due, drawn from those that came there since the last draw; the due one is promoted next
    (docs/decisions/0017).
    """

    def __init__(self, asha: scheduler_spec.Asha, goal: Goal, seed: int = 0) -> None:
        """Raises ValueError where the budgets make no ladder."""
        super().__init__(asha.budgets)
        self._eta, self._grace = asha.reduction_factor, asha.grace
        self._seed = seed
        self._count = asha.brackets
        sizes = bracket_sizes(len(self.budgets), self._eta)[: self._count]
        self._shares = list(accumulate(sizes))
        self._period = round(min(1 / asha.control, LARGEST)) if asha.control else 0
        self._rungs = {
            (b, budget): Rung(budget, goal, draws=self._period > 0 and self._grace <= budget < self.max_budget)
            for b in range(self._count)
            for budget in self.budgets[b:]
        }
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
        results, spec = trial.status.rungs, trial.spec
        for result, later in pairwise(results):
            if later.control:
                self.rung(trial.index, result.budget).add_draw(later.decided)
        if spec.control and results and spec.budget > trial.done:
            self.rung(trial.index, trial.done).add_draw(spec.order)

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
                    control = self._control(rung, above) if self._period else None
                    return control or self._promotion(rung, index, above)
        return None

    def _promotion(self, rung: Rung, index: int, above: int) -> Promotion:
        rung.promote()
        return Promotion(index, above, f"promoted: {self.standing(index, rung.budget).sentence()}")

    def _control(self, rung: Rung, above: int) -> Promotion | None:
        """The promotion of one that is not due, where it is the turn of those and the rung has one."""
        number = sum(each.promoted for each in self._rungs.values()) + 1
        drawable = rung.drawable(self._withdrawn, self._go_on(rung)) if number % self._period == 0 else []
        if not drawable:
            return None
        index = drawable[generator(self._seed, number, _CONTROLS).integers(len(drawable))]
        rung.draw(index)
        why = (
            f"control: drawn at random from the {len(drawable)} that came to rung {rung.budget} since the last draw "
            "and were not due, to see what early stopping loses"
        )
        return Promotion(index, above, f"{why}: {self.standing(index, rung.budget).sentence()}", control=True)

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

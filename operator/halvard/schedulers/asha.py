"""ASHA: asynchronous successive halving, promotion type (Li et al., MLSys 2020, arXiv 1810.05934, Algorithm 2)."""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from halvard import study
from halvard.trial import Trial


def rungs(min_budget: int, max_budget: int, reduction_factor: int) -> tuple[int, ...]:
    """Returns the budgets min * eta^k below max, then max itself: exact integers, strictly increasing.

    Raises ValueError where the three make no ladder.
    """
    if min_budget < 1:
        raise ValueError(f"minBudget is {min_budget}: it must be at least 1")
    if max_budget < min_budget:
        raise ValueError(f"maxBudget is {max_budget}: it must be at least minBudget ({min_budget})")
    if reduction_factor < 2:  # noqa: PLR2004  # with 1 no budget would ever be reached
        raise ValueError(f"reductionFactor is {reduction_factor}: it must be at least 2")
    budgets = []
    budget = min_budget
    while budget < max_budget:
        budgets.append(budget)
        budget *= reduction_factor
    return (*budgets, max_budget)


class Start(NamedTuple):
    """Where a new trial begins."""

    bracket: int
    budget: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one result stands among the `completed` ones at its rung, of which the best `go_on` are promoted.

    `value` is None where it is not finite: such a result has the last place.
    `cutoff` is the worst value that goes on, None where none does.
    """

    budget: int
    value: float | None
    place: int
    completed: int
    go_on: int
    cutoff: float | None
    top: bool

    def sentence(self) -> str:
        """Returns it for people."""
        if self.value is None:
            return f"value not finite, the last of {self.completed} at rung {self.budget}; it never goes on"
        sentence = f"value {self.value:g} is place {self.place} of {self.completed} at rung {self.budget}"
        if self.top:
            return f"{sentence}, the highest"
        if self.cutoff is None:
            return f"{sentence}; none goes on yet"
        best = "the best goes on" if self.go_on == 1 else f"the best {self.go_on} go on"
        return f"{sentence}; {best} (cut-off {self.cutoff:g})"


@dataclass(frozen=True, slots=True)
class Promotion:
    """The decision that a trial goes on to `budget`, and why."""

    index: int
    budget: int
    why: str


Key = tuple[float, int]
"""What results are ordered by, the best first: (value where lower is better, trial index), so ties have one order."""


class _Rung:
    """The results at one budget, kept so that a decision looks up one place and sorts nothing."""

    def __init__(self) -> None:
        self.keys: dict[int, Key | None] = {}  # by trial index; None where the value is not finite
        self.ranked: list[Key] = []  # the finite ones, best first
        self.waiting: list[Key] = []  # a heap of the finite ones that were not promoted

    def add(self, index: int, score: float | None, *, promoted: bool) -> None:
        key = None if score is None else (score, index)
        self.keys[index] = key
        if key is not None:
            insort(self.ranked, key)
            if not promoted:
                heappush(self.waiting, key)

    def due(self, eta: int, withdrawn: set[int]) -> int | None:
        """The best trial among the top floor(n / eta) that was not promoted: only the best that waits can be it."""
        while self.waiting and self.waiting[0][1] in withdrawn:
            heappop(self.waiting)
        if self.waiting and bisect_left(self.ranked, self.waiting[0]) < len(self.keys) // eta:
            return self.waiting[0][1]
        return None


class Asha:
    """One bracket of ASHA. Every decision costs O(log n) comparisons and a shift inside a list (microseconds at 1e5).

    Where the paper says nothing: the lower trial index wins a tie; a value that is not finite counts as a result, is
    the worst and never goes on; a trial that was withdrawn keeps its places and never goes on either.
    """

    def __init__(self, asha: study.Asha, goal: study.Goal) -> None:
        """Raises ValueError where the budgets make no ladder."""
        self.budgets = rungs(asha.min_budget, asha.max_budget, asha.reduction_factor)
        self.max_budget = asha.max_budget
        self._eta = asha.reduction_factor
        self._sign = 1 if goal == "minimize" else -1
        self._rungs = {budget: _Rung() for budget in self.budgets}
        self._withdrawn: set[int] = set()

    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial: a result was promoted if the trial's budget is above it."""
        for result in trial.status.rungs:
            self._add(trial.index, result.budget, result.value, promoted=trial.spec.budget > result.budget)
        if trial.status.state in ("Failed", "Stopped"):
            self.withdraw(trial.index)

    def start(self, index: int) -> Start:  # noqa: ARG002  # there is one bracket
        """Returns the lowest rung."""
        return Start(bracket=0, budget=self.budgets[0])

    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; raises ValueError where `budget` is no rung or the trial has a result there."""
        self._add(index, budget, value, promoted=False)

    def promote(self) -> Promotion | None:
        """Returns the first promotion that is due, scanning the rungs from the top down, and holds it for done."""
        for level in reversed(range(len(self.budgets) - 1)):
            budget, above = self.budgets[level : level + 2]
            index = self._rungs[budget].due(self._eta, self._withdrawn)
            if index is not None:
                heappop(self._rungs[budget].waiting)
                return Promotion(index, above, f"promoted: {self.standing(index, budget).sentence()}")
        return None

    def withdraw(self, index: int) -> None:
        """Never promotes this trial again; its results stay in their rungs."""
        self._withdrawn.add(index)

    def explain(self, index: int, budget: int) -> str:
        """Returns the standing of a result as a sentence."""
        return self.standing(index, budget).sentence()

    def standing(self, index: int, budget: int) -> Standing:
        """Returns where the trial's result at this rung stands now; raises KeyError where there is none."""
        rung = self._rungs[budget]
        key, completed = rung.keys[index], len(rung.keys)
        top = budget == self.max_budget
        go_on = 0 if top else completed // self._eta
        last = min(go_on, len(rung.ranked))
        return Standing(
            budget=budget,
            value=None if key is None else self._sign * key[0],
            place=completed if key is None else bisect_left(rung.ranked, key) + 1,
            completed=completed,
            go_on=go_on,
            cutoff=self._sign * rung.ranked[last - 1][0] if last else None,
            top=top,
        )

    def _add(self, index: int, budget: int, value: float | None, *, promoted: bool) -> None:
        rung = self._rungs.get(budget)
        if rung is None:
            raise ValueError(f"trial {index} has a result at budget {budget}, which is no rung: {self.budgets}")
        if index in rung.keys:
            raise ValueError(f"trial {index} already has a result at rung {budget}")
        finite = value is not None and math.isfinite(value)
        rung.add(index, self._sign * value if value is not None and finite else None, promoted=promoted)

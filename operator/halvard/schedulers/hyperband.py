"""Hyperband, synchronous (Li et al., JMLR 18, 2018, arXiv 1603.06560, Algorithm 1)."""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from typing_extensions import override

from halvard import scheduler_spec
from halvard.ladder import bracket_sizes
from halvard.schedulers.rung import Rung, Standing
from halvard.schedulers.scheduler import Halving, Promotion, Start, no_rung
from halvard.study import Goal
from halvard.trial import Trial


class _Bracket:
    """One run of successive halving over `size` trials, the last before index `end`."""

    def __init__(self, end: int, size: int, budgets: tuple[int, ...], eta: int, goal: Goal) -> None:
        self.end = end
        self.budgets = budgets
        self.rungs = [Rung(budget, goal) for budget in budgets]
        self.places = [size // eta**level for level in range(len(budgets))]  # n_i = floor(n / eta^i)
        self.awaited: list[set[int]] = [set() for _ in budgets]  # trials that train for the rung

    @property
    def top(self) -> int:
        """The level of the highest rung."""
        return len(self.budgets) - 1

    def frontier(self, withdrawn: set[int], lacks_trials: Callable[[], bool]) -> tuple[int, int | None]:
        """Returns the first level that is not settled, and the trial that is due to go on there, None where it waits.

        At the top nothing is to be decided.
        """
        for level, rung in enumerate(self.rungs[:-1]):
            if self.awaited[level] or (level == 0 and lacks_trials()):
                return level, None
            best = rung.best_waiting(withdrawn)
            if best is not None and rung.promoted < self.places[level + 1]:
                return level, best
        return self.top, None


class Hyperband(Halving):
    """Brackets one after the other: bracket k has s = s_max - k mod (s_max + 1), and its n trials follow on each other.

    So bracket and place are known from a trial's index alone. A rung is decided once every trial that came to it has a
    result or was withdrawn; then the best floor(n_i / eta) go on, the best first. No slot waits for that: the next
    bracket begins as soon as the trials of this one have begun; promotions of earlier brackets come first.

    Where the paper says nothing: the budgets are R / eta^k rounded down; the lower index wins a tie. A trial that is
    withdrawn or has no finite value is the worst of its rung and never goes on, and so are trials that the last
    bracket lacks because no more will come (limits, an exhausted search space): its other trials have all the places.
    """

    def __init__(self, hyperband: scheduler_spec.Hyperband, goal: Goal, more_trials: Callable[[], bool]) -> None:
        """`more_trials` tells whether a trial can still begin; raises ValueError where the budgets make no ladder."""
        eta = hyperband.reduction_factor
        super().__init__(hyperband.budgets)
        self._eta, self._goal, self._more_trials = eta, goal, more_trials
        self._sizes = bracket_sizes(len(self.budgets), eta)
        self._ends = list(accumulate(self._sizes))  # of the brackets of one cycle
        self._brackets: dict[int, _Bracket] = {}
        self._open: set[int] = set()  # brackets in which something may still be decided
        self._begun = 0  # one more than the highest index

    @override
    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial: what it has, and what it is training for."""
        bracket = self._begin(trial.index)
        if trial.assigned:
            bracket.awaited[self._level(trial.index, trial.spec.budget)].add(trial.index)
        super().fold(trial)

    def start(self, index: int) -> Start:
        """Returns the bracket of this trial and its lowest rung."""
        bracket = self._begin(index)
        bracket.awaited[0].add(index)
        return Start(self.bracket(index), bracket.budgets[0])

    @override
    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; raises ValueError where `budget` is no rung or the trial has a result there."""
        super().record(index, budget, value)
        self._bracket_of(index).awaited[self._level(index, budget)].discard(index)

    @override
    def withdraw(self, index: int) -> None:
        """Never promotes this trial again, and no rung waits for it any more."""
        super().withdraw(index)
        for awaited in self._bracket_of(index).awaited:
            awaited.discard(index)

    def promote(self) -> Promotion | None:
        """Returns the first promotion that is due, earlier brackets first, and holds it for done."""
        for number in sorted(self._open):
            bracket = self._brackets[number]
            level, best = self._frontier(bracket)
            if best is not None:
                bracket.rungs[level].promote()
                bracket.awaited[level + 1].add(best)
                why = self._standing(best, level, waits=False).sentence()
                return Promotion(best, bracket.budgets[level + 1], f"promoted: {why}")
            if level == bracket.top:  # a new trial would open it again
                self._open.discard(number)
        return None

    def bracket(self, index: int) -> int:
        """Returns the number of the bracket that a trial belongs to."""
        cycle, rest = divmod(index, self._ends[-1])
        return cycle * len(self._sizes) + bisect_right(self._ends, rest)

    @override
    def rung(self, index: int, budget: int) -> Rung:
        """Returns the rung at this budget of the trial's bracket; raises ValueError where it has none."""
        return self._bracket_of(index).rungs[self._level(index, budget)]

    @override
    def standing(self, index: int, budget: int) -> Standing:
        """Returns where the trial's result at this rung stands now; raises KeyError where there is none."""
        level = self._level(index, budget)
        frontier, best = self._frontier(self._bracket_of(index))
        return self._standing(index, level, waits=level > frontier or (level == frontier and best is None))

    def _standing(self, index: int, level: int, *, waits: bool) -> Standing:
        bracket = self._bracket_of(index)
        top = level == bracket.top
        go_on = 0 if top else bracket.places[level + 1]
        return bracket.rungs[level].standing(index, go_on, top=top, bracket=self.bracket(index), waits=waits)

    def _frontier(self, bracket: _Bracket) -> tuple[int, int | None]:
        return bracket.frontier(self._withdrawn, lambda: self._can_grow(bracket) and self._more_trials())

    def _can_grow(self, bracket: _Bracket) -> bool:
        return self._begun < bracket.end

    def _level(self, index: int, budget: int) -> int:
        budgets = self._bracket_of(index).budgets
        if budget not in budgets:
            raise no_rung(index, budget, budgets)
        return budgets.index(budget)

    def _begin(self, index: int) -> _Bracket:
        self._begun = max(self._begun, index + 1)
        self._open.add(self.bracket(index))
        return self._bracket_of(index)

    def _bracket_of(self, index: int) -> _Bracket:
        number = self.bracket(index)
        if number not in self._brackets:
            cycle, place = divmod(number, len(self._sizes))
            size = self._sizes[place]
            end = cycle * self._ends[-1] + self._ends[place]
            self._brackets[number] = _Bracket(end, size, self.budgets[place:], self._eta, self._goal)
        return self._brackets[number]

"""The median stopping rule (Golovin et al., "Google Vizier", KDD 2017)."""

import math
from bisect import insort
from dataclasses import dataclass
from fractions import Fraction

from typing_extensions import override

from halvard import scheduler_spec
from halvard.schedulers.stopping import Stopping
from halvard.study import Goal


@dataclass(slots=True)
class _Course:
    """One trial so far: the step of its last report, its best score, and the sum of its scores."""

    step: int = 0
    best: float = math.inf
    count: int = 0
    total: Fraction = Fraction()  # exact, so that the average of equal values is that value
    diverged: bool = False

    def add(self, step: int, score: float) -> None:
        self.step, self.count = step, self.count + 1
        self.best = min(self.best, score)
        if math.isfinite(score):
            self.total += Fraction(score)
        else:
            self.diverged = True

    @property
    def average(self) -> float:
        """Of its scores, the nearest float; infinity where one of them was not finite."""
        return math.inf if self.diverged else float(self.total / self.count)


class Median(Stopping):
    """Stops a trial at a step where its best value so far is strictly worse than a median of the other trials.

    That is the median of their running averages up to this step, over the trials that came at least as far; at least
    `trials` of them are needed. A decision costs O(1), a report O(log n) comparisons and a shift inside a list for each
    step since the trial's last one.

    Where the paper says nothing: all other trials count, whether they finished, run on, failed or were stopped (the
    paper has the completed ones); an average is over the reports there are, so a trial without one until this step
    does not count; the median of an even number is halfway between the middle two; an average over a value that is not
    finite is the worst; a trial is stopped at a report that is not finite, whatever the others do.
    """

    def __init__(self, median: scheduler_spec.Median, goal: Goal) -> None:
        """Begins without reports."""
        super().__init__(median, goal)
        self._needed = median.trials
        self._courses: dict[int, _Course] = {}  # by trial index
        self._averages: dict[int, list[float]] = {}  # by step, of the trials that came that far, in order

    @override
    def reason(self, index: int, step: int, score: float) -> str | None:
        """Returns why the trial is to stop at this report."""
        if score == math.inf:
            return f"the value at step {step} is not finite"
        others = self._averages.get(step, [])
        if len(others) < self._needed:
            return None
        course = self._courses.get(index)
        best = min(score, course.best) if course else score
        median = _median(others)
        if best <= median:
            return None
        return (
            f"the best value by step {step}, {self._sign * best:g}, is worse than {self._sign * median:g}, "
            f"the median of the averages of {len(others)} other trials up to there"
        )

    @override
    def learn(self, index: int, step: int, score: float) -> None:
        """Takes in a report that counts."""
        course = self._courses.setdefault(index, _Course())
        self._pass(course, step)
        course.add(step, score)
        self._insert(step, course.average)

    @override
    def reached(self, index: int) -> None:
        """Hears that the trial came to the full budget: past all steps."""
        if course := self._courses.get(index):
            self._pass(course, self.max_budget)

    def _pass(self, course: _Course, until: int) -> None:
        """The trial came past the steps between its last report and `until` without a report at them."""
        if course.count:
            for step in range(course.step + self._interval, until, self._interval):
                self._insert(step, course.average)

    def _insert(self, step: int, average: float) -> None:
        insort(self._averages.setdefault(step, []), average)


def _median(ordered: list[float]) -> float:
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else low / 2 + high / 2  # their sum may overflow

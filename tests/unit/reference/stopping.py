"""Rules that stop a trial at a report, from their definitions: all history gone through anew at every report.

Losses are minimised; `math.inf` stands for one that is not finite.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median

Course = Mapping[int, float]
"""The losses that a trial reported, by step, in the order of the steps."""


def median_stops(course: Course, others: Sequence[tuple[int, Course]], needed: int) -> bool:
    """Whether the median stopping rule of Golovin et al. (KDD 2017) stops the trial at its last report.

    `others` says of each other trial how far it came. The paper counts completed trials, here all do that came at least
    as far; a trial without a report by then has no average.
    """
    s = max(course)
    if course[s] == math.inf:
        return True
    best = min(course.values())
    until_s = [[loss for step, loss in o.items() if step <= s] for came_to, o in others if came_to >= s]
    averages = [math.inf if math.inf in losses else mean(losses) for losses in until_s if losses]
    return len(averages) >= needed and best > median(averages)


def patience_stops(course: Course, patience: int, min_delta: float) -> bool:
    """Whether the trial has not improved by more than `min_delta` for `patience` units by its last report."""
    best, since = math.inf, 0
    for step, loss in course.items():
        if loss < math.inf and (best == math.inf or best - loss > min_delta):
            best, since = loss, step
    return max(course) - since >= patience

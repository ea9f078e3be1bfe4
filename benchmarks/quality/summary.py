"""What many runs say: means with their standard errors, and each policy beside another on the same seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from benchmarks.quality.loop import Improvement
from benchmarks.quality.runs import Run


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds and its standard error (NaN of a single seed); `missed`: the share that never got there."""

    mean: float
    error: float
    missed: float
    seeds: int

    @override
    def __str__(self) -> str:
        error = "" if math.isnan(self.error) else f" ± {self.error:.2f}"
        return f"{self.mean:.2f}{error}" + (f" ({self.missed:.0%} missed)" if self.missed else "")


@dataclass(frozen=True, slots=True)
class Reached:
    """When, and after how much work of all workers, a run finished a good trial, in R; where it did not, the most."""

    at: float
    busy: float
    missed: bool


def reached(run: Run, target: float, cap: float, workers: int) -> Reached:
    """Returns when the run got there; a miss counts as the moment at which it was cut off, all workers busy."""
    found: Improvement | None = run.first(target)
    if found is None:
        return Reached(cap, cap * workers, missed=True)
    return Reached(found.at, found.busy, missed=False)


def mean(values: Sequence[float], missed: Sequence[bool]) -> Mean:
    return Mean(*_mean_and_error(values), sum(missed) / len(missed), len(values))


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one takes as the other: the geometric mean over seeds; `z`: of its logarithm."""

    ratio: float
    z: float
    log_error: float

    @override
    def __str__(self) -> str:
        return f"{self.ratio:.2f}" + ("" if math.isnan(self.z) else f" (z {self.z:+.1f})")


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Ratio | None:
    """Returns how many times as long `one` takes, on the seeds (the keys) that both have; None where that is none."""
    logs = [math.log(one[seed] / other[seed]) for seed in one if seed in other]
    if not logs:
        return None
    average, error = _mean_and_error(logs)
    return _ratio(average, error)


def pooled(ratios: Sequence[Ratio]) -> Ratio:
    """Returns the geometric mean of independent ratios, one for each table, all of the same weight."""
    average = sum(math.log(each.ratio) for each in ratios) / len(ratios)
    return _ratio(average, math.sqrt(sum(each.log_error**2 for each in ratios)) / len(ratios))


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _ratio(average: float, error: float) -> Ratio:
    if error == 0:  # the same on every seed
        return Ratio(math.exp(average), math.copysign(math.inf, average) if average else 0.0, 0.0)
    return Ratio(math.exp(average), average / error, error)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    average = sum(values) / n
    if n == 1:
        return average, math.nan
    return average, math.sqrt(sum((value - average) ** 2 for value in values) / (n - 1) / n)


def regret(run: Run, best: float, typical: float, times: Sequence[float]) -> list[float]:
    """Returns at each time, ascending, the simple regret of the best trial finished by then.

    It is 0 at the table's best final value and 1 at its median, which is also where a run stands with none finished.
    """
    shares, value, upcoming = [], typical, list(run.improvements)
    for time in times:
        while upcoming and upcoming[0].at <= time:
            value = min(value, upcoming.pop(0).value)
        shares.append((value - best) / (typical - best))
    return shares

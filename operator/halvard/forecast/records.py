"""What is known of all trials as arrays that grow with them: a row for each trial, at its index."""

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from halvard.space import encode
from halvard.study import StudySpec
from halvard.tried import Tried

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Records:
    """Rows of trials that nobody has told of say nothing: no point, no result."""

    def __init__(self, spec: StudySpec) -> None:
        """Knows nothing yet."""
        self._parameters, self.sign = spec.parameters, spec.objective.sign
        self.budgets = spec.scheduler.budgets
        self._levels = {budget: level for level, budget in enumerate(self.budgets)}
        point, rungs = (len(self._parameters),), (len(self.budgets),)
        columns = [("point", "f8", point), ("value", "f8", rungs), ("seconds", "f8", rungs), ("order", "f8", rungs)]
        self._blank = np.zeros(1, [*columns, ("known", "?"), ("failed", "?")])
        for name, *_ in columns:
            self._blank[name] = math.nan
        self._rows = self._blank[:0]
        self.count = 0  # of rows in use

    def put(self, index: int, tried: Tried) -> None:
        """Takes in what is known of a trial now."""
        self.count = max(self.count, index + 1)
        if len(self._rows) < self.count:
            self._rows = np.append(self._rows, np.repeat(self._blank, max(64, self.count)))
        row = self._rows[index]
        if not row["known"]:
            row["point"], row["known"] = encode(self._parameters, tried.parameters), True
        row["failed"] = tried.failed
        for budget, value in tried.results.items():
            if budget in self._levels:
                level, seconds = self._levels[budget], tried.seconds.get(budget, 0.0)
                row["value"][level] = math.inf if value is None else self.sign * value
                row["seconds"][level] = seconds if 0 < seconds < math.inf else math.nan
                row["order"][level] = tried.orders.get(budget, 0)

    def known(self) -> "Known":
        """Returns what is known of the trials that have a result or failed."""
        rows = self._rows[: self.count]
        trials = np.flatnonzero(rows["failed"] | ~np.isnan(rows["value"]).all(axis=1))
        told = rows[trials]
        return Known(trials, told["point"], told["value"], told["seconds"], told["order"], told["failed"])

    def pending(self) -> Array:
        """Returns the points (p, d) of the trials that have no result yet, in the order of their indices."""
        rows = self._rows[: self.count]
        points: Array = rows["point"][rows["known"] & ~rows["failed"] & np.isnan(rows["value"]).all(axis=1)]
        return points


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of trials that have a result or failed, n of them in the order of their indices.

    `points` (n, d) of the unit cube are NaN where a parameter is not active; of `values` (n, rungs) less is better, NaN
    where there is none yet and infinite where it is not finite; `seconds` (n, rungs) is what the legs took, NaN where
    nobody knows; `failed` (n,): nothing more will come of it, because it failed or was stopped.
    """

    trials: NDArray[np.intp]
    points: Array
    values: Array
    seconds: Array
    orders: Array
    failed: Flags

    def first(self, results: int) -> Self:
        """Returns what was known when so many results had come, but for trials that failed."""
        last = np.partition(self.orders[~np.isnan(self.values)], results - 1)[results - 1]
        came = self.orders <= last
        then = replace(
            self,
            values=np.where(came, self.values, np.nan),
            seconds=np.where(came, self.seconds, np.nan),
            failed=np.zeros_like(self.failed),
        )
        return then.of(np.flatnonzero(came.any(axis=1)))

    def of(self, rows: NDArray[np.intp]) -> Self:
        """Returns what is known of some of them."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})


def latest_levels(values: Array) -> NDArray[np.intp]:
    """Returns the highest level (n,) that has one of the values (n, rungs), and the top where none has."""
    levels: NDArray[np.intp] = values.shape[1] - 1 - np.argmax(~np.isnan(values[:, ::-1]), axis=1)
    return levels


def first_levels(values: Array) -> NDArray[np.intp]:
    """Returns the lowest level (n,) that has one of the values (n, rungs), and the lowest of all where none has."""
    levels: NDArray[np.intp] = np.argmax(~np.isnan(values), axis=1)
    return levels

"""What is known of all trials as arrays that grow with them: a row for each trial, at its index."""

import math

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

    @property
    def points(self) -> Array:
        """Points of the unit cube (n, d), NaN where a parameter is not active."""
        return self._column("point")

    @property
    def values(self) -> Array:
        """Results (n, rungs) of which less is better, NaN where there is none yet, infinite where it is not finite."""
        return self._column("value")

    @property
    def seconds(self) -> Array:
        """What the leg took that led to each result (n, rungs), NaN where nobody knows."""
        return self._column("seconds")

    @property
    def failed(self) -> Flags:
        """Whether nothing more will come of a trial (n,), because it failed or was stopped."""
        flags: Flags = self._rows["failed"][: self.count]
        return flags

    @property
    def pending(self) -> Flags:
        """Whether a trial has no result yet (n,)."""
        none: Flags = self._rows["known"][: self.count] & ~self.failed & np.isnan(self.values).all(axis=1)
        return none

    @property
    def results(self) -> int:
        """How many results there are."""
        return int((~np.isnan(self.values)).sum())

    def first(self, results: int) -> Array:
        """Returns the values (n, rungs) as they were when so many results had come."""
        orders = self._column("order")
        last = np.partition(orders[~np.isnan(orders)], results - 1)[results - 1]
        return np.where(orders <= last, self.values, np.nan)

    def _column(self, name: str) -> Array:
        column: Array = self._rows[name][: self.count]
        return column

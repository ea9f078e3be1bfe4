"""What a unit of budget costs: measured where a trial has trained, predicted from its configuration where not."""

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.process import features
from halvard.forecast.records import Flags, first_levels, latest_levels
from halvard.forecast.ridge import Ridge

FEWEST = 10  # measured trials, or no costs are compared
MOST = 500  # the latest are looked at
FEWEST_PAIRS = 3  # trials with two legs
LEAST_SHARE = 0.05  # of a leg that is training, whatever the start takes

Array = NDArray[np.float64]
Units = NDArray[np.intp]


class Cost:
    """Seconds per unit of budget; 1 for all where too little was measured. `start`: the seconds a Pod takes before."""

    def __init__(
        self, seconds: Array, came: Flags, budgets: tuple[int, ...], choices: tuple[int, ...], points: Array
    ) -> None:
        """Takes the seconds of the legs (n, rungs), NaN where unknown, where results came, and the points (n, d)."""
        self._units, self._choices = units_of_legs(came, budgets), choices
        self._rates, start = rates(seconds, self._units)
        rows = np.flatnonzero(~np.isnan(self._rates))
        self.known = len(rows) >= FEWEST
        self.start = start if self.known else 0.0
        if self.known:
            design = self._design(points[rows[-MOST:]])
            logs = np.log(self._rates[rows[-MOST:]])
            self._mean = float(logs.mean())
            self._model = Ridge(design, logs - self._mean, np.ones(design.shape[1]))

    def predict(self, points: Array) -> Array:
        """Returns the cost (m,) at new points (m, d)."""
        if not self.known:
            return np.ones(len(points))
        rates: Array = np.exp(self._mean + self._model.predict(self._design(points))[0])
        return rates

    def of_trials(self, points: Array) -> tuple[Array, Array]:
        """Returns the cost (n,) of the trials at their points (n, d), and what each leg of each (n, rungs) takes.

        The start of its Pod is in neither, or a rung that only fresh Pods come to would seem dearer than it is.
        """
        cost = self._rates if self.known else np.ones(len(points))
        missing = np.isnan(cost)
        cost = np.where(missing, 0.0, cost)
        cost[missing] = self.predict(points[missing])
        return cost, cost[:, None] * self._units

    def _design(self, points: Array) -> Array:
        at = features(self._choices, points) - 0.5
        return np.hstack([np.ones((len(at), 1)), at, at**2])


def units_of_legs(came: Flags, budgets: tuple[int, ...]) -> Units:
    """Returns what a leg to each rung trains (n, rungs): a first one all of its budget, a later one what is new."""
    first = np.argmax(came, axis=1)
    units: Units = np.where(np.arange(len(budgets)) <= first[:, None], budgets, np.diff(budgets, prepend=0))
    return units


def rates(seconds: Array, units: Units) -> tuple[Array, float]:
    """Returns seconds per unit (n,) of the latest leg of each trial, its Pod's start taken off, and that start.

    A rate is NaN where it is unknown. A first leg begins with that start, a later one only where the trial was not
    promoted in its Pod: of the two rates that this makes possible, the one nearer to the first leg's is taken.
    """
    rows, first, latest = np.arange(len(seconds)), first_levels(seconds), latest_levels(seconds)
    began, last = seconds[rows, first], seconds[rows, latest]
    few, more = units[rows, first], units[rows, latest]
    start = start_up(began, few, last, more)
    rate = np.maximum(began - start, LEAST_SHARE * began) / few
    warm, cold = last / more, np.maximum(last - start, LEAST_SHARE * last) / more
    later = np.where(np.abs(np.log(cold / rate)) < np.abs(np.log(warm / rate)), cold, warm)
    return np.where(latest > first, later, rate), start


def start_up(first: Array, units: Units, last: Array, more: Units) -> float:
    """Returns the seconds that a first leg takes beyond its share of what later legs take; 0 where too little is known.

    Takes seconds and units of the first and of the latest legs, of which those with the most units say most.
    """
    for least in (6, 2):
        pairs = (more >= least * units) & np.isfinite(first - last)
        if pairs.sum() >= FEWEST_PAIRS:
            beyond = first[pairs] - last[pairs] * units[pairs] / more[pairs]
            return max(0.0, float(np.median(beyond)))
    return 0.0

"""What a unit of budget costs: measured where a trial has trained, predicted from its configuration where not."""

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.process import features
from halvard.forecast.records import latest_levels
from halvard.forecast.ridge import Ridge

FEWEST = 10  # measured trials, or no costs are compared
MOST = 500  # the latest are looked at

Array = NDArray[np.float64]


class Cost:
    """Seconds per unit of budget; 1 for all where too little was measured."""

    def __init__(self, seconds: Array, budgets: tuple[int, ...], choices: tuple[int, ...], points: Array) -> None:
        """Takes the seconds of the legs (n, rungs), NaN where unknown, and the trials' points (n, d)."""
        self._seconds, self._units, self._choices = seconds, np.diff(budgets, prepend=0), choices
        levels = latest_levels(seconds)
        self._rates = np.take_along_axis(seconds, levels[:, None], axis=1)[:, 0] / self._units[levels]
        rows = np.flatnonzero(~np.isnan(self._rates))
        self.known = len(rows) >= FEWEST
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
        """Returns the cost (n,) of the trials at their points (n, d), and what each leg of each (n, rungs) takes."""
        if not self.known:
            return np.ones(len(points)), np.broadcast_to(self._units, self._seconds.shape).astype(np.float64)
        rates, missing = self._rates.copy(), np.isnan(self._rates)
        rates[missing] = self.predict(points[missing])
        return rates, np.where(np.isnan(self._seconds), rates[:, None] * self._units, self._seconds)

    def _design(self, points: Array) -> Array:
        at = features(self._choices, points) - 0.5
        return np.hstack([np.ones((len(at), 1)), at, at**2])

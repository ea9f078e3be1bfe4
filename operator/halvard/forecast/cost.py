"""What a unit of budget costs: measured where a trial has trained, predicted from its configuration where not."""

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.ridge import Ridge

FEWEST = 10  # measured trials, or no costs are compared
MOST = 500  # the latest are looked at

Array = NDArray[np.float64]


class Cost:
    """Seconds per unit of budget; 1 for all where too little was measured."""

    def __init__(self, seconds: Array, budgets: tuple[int, ...], features: Array) -> None:
        """Takes the seconds of each leg (n, rungs), NaN where unknown, and the configurations' features (n, f)."""
        self._seconds, self._units = seconds, np.diff(budgets, prepend=0)
        self._rates = measured(seconds, budgets)
        rows = np.flatnonzero(~np.isnan(self._rates))
        self.known = len(rows) >= FEWEST
        if self.known:
            logs = np.log(self._rates[rows[-MOST:]])
            self._mean = float(logs.mean())
            self._model = Ridge(_design(features[rows[-MOST:]]), logs - self._mean, np.ones(1 + 2 * features.shape[1]))

    def of_trials(self, features: Array) -> Array:
        """Returns the cost of each trial (n,), whose features (n, f) are those that were given."""
        if not self.known:
            return np.ones(len(features))
        rates, missing = self._rates.copy(), np.isnan(self._rates)
        rates[missing] = self.predict(features[missing])
        return rates

    def of_legs(self, rates: Array) -> Array:
        """Returns what each leg of each trial (n, rungs) took or will take, by the trials' rates (n,)."""
        expected = rates[:, None] * self._units
        return np.where(np.isnan(self._seconds), expected, self._seconds) if self.known else expected

    def predict(self, features: Array) -> Array:
        """Returns the cost (m,) of new configurations."""
        if not self.known:
            return np.ones(len(features))
        rates: Array = np.exp(self._mean + self._model.predict(_design(features))[0])
        return rates


def measured(seconds: Array, budgets: tuple[int, ...]) -> Array:
    """Returns seconds per unit (n,) in each trial's latest leg of which they are known, NaN where there is none."""
    rates = np.full(len(seconds), np.nan)
    for level, units in enumerate(np.diff(budgets, prepend=0)):
        known = ~np.isnan(seconds[:, level])
        rates[known] = seconds[known, level] / units
    return rates


def _design(features: Array) -> Array:
    return np.column_stack([np.ones(len(features)), features, features**2])

"""Bayesian ridge regression: a few coefficients, each with a normal prior around zero, and noise that is estimated."""

import numpy as np
from numpy.typing import NDArray

NOISE = 0.25  # variance that is expected before there are observations
NOISE_WEIGHT = 5.0  # as much as this many of them

Array = NDArray[np.float64]


class Ridge:
    """The posterior of the coefficients, and the noise by leaving each observation out once."""

    def __init__(self, design: Array, targets: Array, deviations: Array) -> None:
        """Takes a design (n, c), targets (n,), and the prior standard deviations of the coefficients (c,)."""
        self.noise = NOISE
        for _ in range(2):  # the second time with the noise that the first has found
            precision = design.T @ design / self.noise + np.diag(deviations**-2.0)
            self._covariance = np.linalg.inv(precision)
            self.coefficients: Array = self._covariance @ (design.T @ targets) / self.noise
            leverage = self._spread(design) / self.noise
            self.errors: Array = (targets - design @ self.coefficients) / np.maximum(1 - leverage, 1e-6)
            squares = float(self.errors @ self.errors)
            self.noise = (NOISE_WEIGHT * NOISE + squares) / (NOISE_WEIGHT + len(targets))

    def predict(self, design: Array) -> tuple[Array, Array]:
        """Returns mean (m,) and variance (m,) of what would be observed at a design (m, c)."""
        return design @ self.coefficients, self._spread(design) + self.noise

    def _spread(self, design: Array) -> Array:
        spread: Array = ((design @ self._covariance) * design).sum(axis=1)
        return spread

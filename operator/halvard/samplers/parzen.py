"""Parzen estimators of where trials lie in the unit cube, with a kernel around each, and what a ratio of two says."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from halvard.space import decode, encode
from halvard.study import Parameter, Value

PRIOR_VARIANCE = 1 / 12  # of the uniform distribution
LEAST_DENSITY = 1e-32

Array = NDArray[np.float64]


class Parzen:
    """Each kernel is a product over the parameters: Gauss, reflected at 0 and 1, or a probability for each choice.

    A trial without a parameter says nothing about it: its kernel is uniform there. With a `prior`, the uniform density
    is one more kernel; without, no kernel of a number is narrower than `narrowest`.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        trials: Sequence[Mapping[str, Value]],
        *,
        prior: bool = True,
        narrowest: float = 0.0,
    ) -> None:
        """Takes at least one trial; `narrowest` has to be positive where there is no prior."""
        self._centers = np.array([encode(parameters, trial) for trial in trials])
        self._known = ~np.isnan(self._centers)
        self._choices = np.array([len(parameter.choice or ()) for parameter in parameters])
        # every choice as often as if each had been tried once more
        self._evenly = self._choices / (len(trials) + self._choices)
        self._prior = int(prior)
        self._bandwidths = np.maximum(self._scott(), narrowest)

    def sample(self, count: int, rng: np.random.Generator, wider: float = 1.0) -> Array:
        """Returns points (count, parameters) drawn from the estimate, its kernels of numbers so many times wider."""
        uniform = rng.random((count, len(self._choices)))
        kernels = rng.integers(-self._prior, len(self._centers), count)  # -1 is the prior
        known = self._known[kernels] & (kernels >= 0)[:, None]
        centers = self._centers[kernels]
        unbounded = centers + wider * self._bandwidths * rng.standard_normal(uniform.shape)
        reflected = np.abs((unbounded + 1) % 2 - 1)
        chosen = np.where(rng.random(uniform.shape) < self._evenly, uniform, centers)
        return np.where(known, np.where(self._choices > 0, chosen, reflected), uniform)

    def density(self, points: Array) -> Array:
        """Returns the density (count,) at points (count, parameters), NaN where a parameter is not active."""
        at, centers = points[:, None], self._centers[None]
        images = (at - centers, at + centers, 2 - at - centers)
        gauss = sum(np.exp(-0.5 * (distance / self._bandwidths) ** 2) for distance in images)
        gauss = gauss / (self._bandwidths * np.sqrt(2 * np.pi))
        choices = np.maximum(self._choices, 1)
        same = np.floor(at * choices) == np.floor(centers * choices)
        chosen = self._evenly + (1 - self._evenly) * choices * same
        kernels = np.where(self._choices > 0, chosen, gauss)
        kernels = np.where(np.isnan(at) | np.isnan(centers), 1.0, kernels)
        densities: Array = (kernels.prod(axis=2).sum(axis=1) + self._prior) / (len(self._centers) + self._prior)
        return densities

    def _scott(self) -> Array:
        """Scott's rule for each parameter; a prior counts as one more trial: one trial alone then is no certainty."""
        trials, dimensions = self._centers.shape
        count = self._known.sum(axis=0)
        centers = np.where(self._known, self._centers, 0.0)
        mean = centers.sum(axis=0) / np.maximum(count, 1)
        squares = np.where(self._known, (centers - mean) ** 2, 0.0).sum(axis=0)
        variances = (squares + self._prior * PRIOR_VARIANCE) / np.maximum(count + self._prior, 1)
        bandwidths: Array = np.sqrt(variances) * trials ** (-1 / (dimensions + 4))
        return bandwidths


def densest(parameters: Sequence[Parameter], points: Array, good: Parzen, bad: Parzen) -> list[list[float]]:
    """Returns the points (n, d), those first whose values the good trials are densest at, against the bad ones."""
    values = np.array([encode(parameters, decode(parameters, point)) for point in points])
    ratio = np.maximum(good.density(values), LEAST_DENSITY) / np.maximum(bad.density(values), LEAST_DENSITY)
    best_first: list[list[float]] = points[np.argsort(-ratio, kind="stable")].tolist()
    return best_first

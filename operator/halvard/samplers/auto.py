"""`auto`: where a new trial is most likely to end better than all others, for what it costs.

The model is that of `halvard.forecast`. A quarter of the trials are random whatever it says, and all of them where it
cannot be used.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.forecast import Forecast
from halvard.forecast.forecaster import Forecaster
from halvard.samplers.cube import Draw
from halvard.samplers.random import Random
from halvard.seeded import generator
from halvard.space import decode, encode
from halvard.study import Parameter, StudySpec
from halvard.tried import Tried

RANDOM_SHARE = 0.25
ANYWHERE, NEARBY = 200, 200  # candidates
NEAR_SHARE = 0.05  # the best, around which the nearby ones are
NEAR = 0.2  # standard deviation of a coordinate that changes

Array = NDArray[np.float64]


class Auto:
    """Draws where the forecast promises most; at random where there is none, and always for a share."""

    def __init__(self, spec: StudySpec, forecaster: Forecaster | None = None) -> None:
        """Takes a study, and the forecaster that is told of its trials; without, each proposal makes its own."""
        self._spec, self._parameters = spec, spec.parameters
        self._exact = all(map(_continuous, spec.parameters))
        self._is_choice = np.array([parameter.choice is not None for parameter in spec.parameters])
        self._seed = spec.seed
        self._forecaster = forecaster
        self._random = Random(len(spec.parameters), spec.seed)

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:
        """Yields the candidates, the most promising first, then random points; `why` says which, and why."""
        forecaster = self._forecaster or self._taught(tried)
        forecast = forecaster.forecast()
        if isinstance(forecast, str):
            return self._at_random(index, forecast)
        if forecast.skill <= 0:
            return self._at_random(index, "as nothing was learnt yet about where good trials lie")
        rng = generator(self._seed, index, 0)
        if rng.random() < RANDOM_SHARE:
            return self._at_random(index, f"as {RANDOM_SHARE:.0%} are")
        try:
            candidates = self._candidates(forecast, forecaster.pending(), rng)
        except (ValueError, ArithmeticError) as error:  # those of numpy.linalg are among them
            return self._at_random(index, f"the model failed: {error}")
        return chain(candidates, self._random.others(index, "new trial: random, what auto proposed was tried before"))

    def _at_random(self, index: int, why: str) -> Iterator[Draw]:
        return (draw._replace(why=f"new trial: random, {why}") for draw in self._random.draws(index, {}))

    def _taught(self, tried: Mapping[int, Tried]) -> Forecaster:
        forecaster = Forecaster(self._spec)
        for index, each in tried.items():
            forecaster.learn(index, each)
        return forecaster

    def _candidates(self, forecast: Forecast, pending: Array, rng: np.random.Generator) -> list[Draw]:
        points = self._points(forecast, rng)
        promise = forecast.ahead(self._encoded(points), pending)
        why = f"new trial: auto on {forecast.results} results"
        return [Draw(point.tolist(), why) for point in points[np.argsort(-promise, kind="stable")]]

    def _points(self, forecast: Forecast, rng: np.random.Generator) -> Array:
        """Candidates (m, parameters): anywhere, and near the trials that are expected to end best."""
        best = np.argsort(forecast.mean, kind="stable")[: math.ceil(NEAR_SHARE * len(forecast.mean))]
        anywhere = rng.random((ANYWHERE, len(self._parameters)))
        nearby = rng.random((NEARBY, len(self._parameters)))  # where the trial that it is near has no such parameter
        centers = forecast.points[rng.choice(best, NEARBY)]
        changes = rng.random(nearby.shape) < 1 / 2
        changes[np.arange(NEARBY), rng.integers(nearby.shape[1], size=NEARBY)] = True  # one at least
        moved = np.abs((centers + NEAR * rng.standard_normal(nearby.shape) + 1) % 2 - 1)
        kept = np.where(changes, np.where(self._is_choice, nearby, moved), centers)
        return np.vstack([anywhere, np.where(np.isnan(centers), nearby, kept)])

    def _encoded(self, points: Array) -> Array:
        """The points in the middle of all that mean the same values, NaN where a parameter is not active."""
        if self._exact:
            return points
        return np.array([encode(self._parameters, decode(self._parameters, point)) for point in points])


def _continuous(parameter: Parameter) -> bool:
    return parameter.float is not None and parameter.float.step is None and not parameter.when

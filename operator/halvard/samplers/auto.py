"""`auto`: where a new trial is most likely to end better than all others, for what it costs.

The model is that of `halvard.forecast`. A quarter of the trials are random whatever it says, and all of them where it
cannot be used.
"""

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

    def __init__(self, spec: StudySpec, forecaster: Forecaster) -> None:
        """Takes a study, and the forecaster that learns from it."""
        self._parameters = spec.parameters
        self._exact = all(map(_continuous, spec.parameters))
        self._is_choice = np.array([parameter.choice is not None for parameter in spec.parameters])
        self._seed = spec.seed
        self._forecaster = forecaster
        self._random = Random(len(spec.parameters), spec.seed)

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:  # noqa: ARG002  # the forecaster knows
        """Yields the candidates, the most promising first, then random points; `why` says which, and why."""
        forecast = self._forecaster.forecast()
        if isinstance(forecast, str):
            return self._at_random(index, forecast)
        if forecast.skill <= 0:
            return self._at_random(index, "as nothing was learnt yet about where good trials lie")
        rng = generator(self._seed, index, 0)
        if rng.random() < RANDOM_SHARE:
            return self._at_random(index, f"as {RANDOM_SHARE:.0%} are")
        candidates = self._candidates(forecast, rng)
        return chain(candidates, self._random.others(index, "new trial: random, what auto proposed was tried before"))

    def _at_random(self, index: int, why: str) -> Iterator[Draw]:
        return (draw._replace(why=f"new trial: random, {why}") for draw in self._random.draws(index, {}))

    def _candidates(self, forecast: Forecast, rng: np.random.Generator) -> list[Draw]:
        records = self._forecaster.records
        points = self._points(records.points, forecast.mean, rng)
        promise = forecast.ahead(self._encoded(points), records.points[records.pending])
        why = f"new trial: auto on {records.results} results"
        return [Draw(point.tolist(), why) for point in points[np.argsort(-promise, kind="stable")]]

    def _points(self, tried: Array, mean: Array, rng: np.random.Generator) -> Array:
        """Candidates (m, parameters): anywhere, and near the trials that are expected to end best."""
        known = int((~np.isnan(mean)).sum())
        best = np.argsort(mean, kind="stable")[: max(1, round(NEAR_SHARE * known))]  # NaN comes last
        anywhere = rng.random((ANYWHERE, tried.shape[1]))
        nearby = rng.random((NEARBY, tried.shape[1]))  # where the trial that it is near has no such parameter
        centers = tried[rng.choice(best, NEARBY)]
        changes = rng.random(nearby.shape) < 1 / 2
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

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
from halvard.samplers.candidates import Candidates
from halvard.samplers.cube import Draw
from halvard.samplers.random import Random
from halvard.seeded import generator
from halvard.study import StudySpec
from halvard.tried import Tried

RANDOM_SHARE = 0.25
NEAR_SHARE = 0.05  # the trials expected to end best, near which some of the candidates are

Array = NDArray[np.float64]


class Auto:
    """Draws where the forecast promises most; at random where there is none, and always for a share."""

    def __init__(self, spec: StudySpec, forecaster: Forecaster) -> None:
        """Takes a study, and the forecaster that is told of its trials."""
        self._seed = spec.seed
        self._forecaster = forecaster
        self._candidates = Candidates(spec.parameters)
        self._random = Random(len(spec.parameters), spec.seed)

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:  # noqa: ARG002  # the forecaster knows
        """Yields the candidates, the most promising first, then random points; `why` says which, and why.

        Raises ValueError or ArithmeticError where the model fails.
        """
        forecast = self._forecaster.forecast()
        if isinstance(forecast, str):
            return self._at_random(index, forecast)
        if forecast.skill <= 0:
            return self._at_random(index, "as nothing was learnt yet about where good trials lie")
        rng = generator(self._seed, index, 0)
        if rng.random() < RANDOM_SHARE:
            return self._at_random(index, f"as {RANDOM_SHARE:.0%} are")
        promising = self._promising(forecast, self._forecaster.pending(), rng)
        return chain(promising, self._random.others(index, "new trial: random, what auto proposed was tried before"))

    def _at_random(self, index: int, why: str) -> Iterator[Draw]:
        return (draw._replace(why=f"new trial: random, {why}") for draw in self._random.draws(index, {}))

    def _promising(self, forecast: Forecast, pending: Array, rng: np.random.Generator) -> list[Draw]:
        best = np.argsort(forecast.mean, kind="stable")[: math.ceil(NEAR_SHARE * len(forecast.mean))]
        points = self._candidates.draw(forecast.points[best], rng)
        promise = forecast.ahead(self._candidates.encoded(points), pending)
        why = f"new trial: auto on {forecast.results} results"
        return [Draw(point.tolist(), why) for point in points[np.argsort(-promise, kind="stable")]]

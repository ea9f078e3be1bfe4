"""Points among which a model chooses: some anywhere, and some near the best trials."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from halvard.space import decode, encode
from halvard.study import Parameter

ANYWHERE, NEARBY = 200, 200
FAR, NEAR = 0.2, 0.02  # standard deviations of how a number is moved: one half of them, and the other

Array = NDArray[np.float64]


class Candidates:
    """Draws points of the unit cube, a coordinate for every declared parameter."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Takes the space of a study."""
        self._parameters = parameters
        self._is_choice = np.array([parameter.choice is not None for parameter in parameters])
        self._exact = all(map(_continuous, parameters))

    def draw(self, best: Array, rng: np.random.Generator) -> Array:
        """Returns points (m, d), half of them like one of the `best` (n, d) but for some coordinates.

        A number is moved by a normal step, reflected at 0 and 1, so that none stays quite the same; every second choice
        is drawn again, and so is what the best one does not have (NaN).
        """
        anywhere = rng.random((ANYWHERE, len(self._parameters)))
        again = rng.random((NEARBY, len(self._parameters)))
        centers = best[rng.integers(len(best), size=NEARBY)]
        far = rng.integers(2, size=again.shape) == 1
        moved = centers + np.where(far, FAR, NEAR) * rng.standard_normal(again.shape)
        chosen = np.where(far, again, centers)
        nearby = np.where(self._is_choice, chosen, np.abs((moved + 1) % 2 - 1))
        return np.vstack([anywhere, np.where(np.isnan(centers), again, nearby)])

    def encoded(self, points: Array) -> Array:
        """Returns each point (m, d) as the middle of all that mean the same values, NaN where one is not active."""
        if self._exact:
            return points
        return np.array([encode(self._parameters, decode(self._parameters, point)) for point in points.tolist()])


def _continuous(parameter: Parameter) -> bool:
    return parameter.float is not None and parameter.float.step is None and not parameter.when

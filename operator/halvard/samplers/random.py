"""Random search: every parameter drawn independently, seeded from (study seed, trial index)."""

from collections.abc import Sequence

import numpy as np

from halvard.space import decode
from halvard.study import Parameter, Value


class Random:
    """Draws a coordinate for every declared parameter, active or not, so that a condition does not shift the others."""

    def __init__(self, parameters: Sequence[Parameter], seed: int) -> None:
        """Takes any integer as seed."""
        self._parameters = parameters
        self._entropy = 2 * seed if seed >= 0 else -2 * seed - 1  # numpy wants it non-negative; no two seeds share one

    def parameters(self, index: int) -> dict[str, Value]:
        """Returns the active parameters of trial `index`; a random search is never exhausted."""
        sequence = np.random.SeedSequence(self._entropy, spawn_key=(index,))
        return decode(self._parameters, np.random.default_rng(sequence).random(len(self._parameters)).tolist())

"""Random search: every parameter drawn independently, seeded from (study seed, trial index)."""

from collections.abc import Iterator, Mapping

from halvard.samplers.cube import Draw
from halvard.samplers.sampler import NEW
from halvard.seeded import generator
from halvard.tried import Tried

REDRAWS = 64


class Random:
    """Draws a coordinate for every declared parameter, active or not, so that a condition does not shift the others."""

    def __init__(self, dimensions: int, seed: int) -> None:
        """Takes any integer as seed."""
        self._dimensions = dimensions
        self._seed = seed

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:  # noqa: ARG002  # nothing is learnt
        """Yields one point after another."""
        yield Draw(self._point(index), NEW)
        yield from self.others(index, NEW)

    def others(self, index: int, why: str) -> Iterator[Draw]:
        """Yields some points for where what a sampler proposed cannot be taken, because of `why`."""
        return (Draw(self._point(index, again), why) for again in range(1, REDRAWS + 1))

    def _point(self, *key: int) -> list[float]:
        point: list[float] = generator(self._seed, *key).random(self._dimensions).tolist()
        return point

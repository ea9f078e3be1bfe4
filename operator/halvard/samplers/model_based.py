"""What samplers with a model do alike: random points where there is nothing to learn from, and always for a share."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Protocol

import numpy as np

from halvard.samplers.cube import Draw
from halvard.samplers.evidence import Evidence, gather
from halvard.samplers.random import Random
from halvard.seeded import generator
from halvard.study import StudySpec
from halvard.tried import Tried


class Model(Protocol):
    """Learns where good trials lie from the results of one rung; a name for people, and what it needs."""

    name: str
    needed: int  # finite results
    random_share: float

    def candidates(self, evidence: Evidence, rng: np.random.Generator) -> list[list[float]]:
        """Returns points of the unit cube, the most promising first."""


class ModelBased:
    """Draws where its model expects good trials; at random where there is no model, and always for a share."""

    def __init__(self, spec: StudySpec, model: Model) -> None:
        """Takes the goal and the seed of a study."""
        self._model = model
        self._sign = spec.objective.sign
        self._seed = spec.seed
        self._random = Random(len(spec.parameters), spec.seed)

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:
        """Yields the candidates, the most promising first, then random points; `why` says which, and why."""
        name, share = self._model.name, self._model.random_share
        evidence = gather(tried, self._model.needed, self._sign)
        if isinstance(evidence, str):
            return self._at_random(index, evidence)
        rng = generator(self._seed, index, 0)
        if rng.random() < share:
            return self._at_random(index, f"as {share:.0%} are")
        why = f"new trial: {name} on {len(evidence.ranked)} results at rung {evidence.rung}"
        candidates = (Draw(point, why) for point in self._model.candidates(evidence, rng))
        return chain(
            candidates, self._random.others(index, f"new trial: random, what {name} proposed was tried before")
        )

    def _at_random(self, index: int, why: str) -> Iterator[Draw]:
        return (draw._replace(why=f"new trial: random, {why}") for draw in self._random.draws(index, {}))

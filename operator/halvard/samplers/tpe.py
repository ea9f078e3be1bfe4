"""The Tree-structured Parzen Estimator: where good trials are dense and bad ones are not, there is the next one.

From Bergstra et al. (NeurIPS 2011): the split of trials into good and bad ones, a Parzen estimator of each with the
prior as one of its kernels, and as proposal the one of some points drawn from the good estimate at which the ratio of
the two is largest. From BOHB (Falkner et al., ICML 2018): the results of the highest rung that has enough of them,
kernels that are products over all parameters, and a share drawn at random whatever the model says. From Optuna: the
best tenth is good, at most 25, and pending trials count as bad, so that many at once do not all go to one place. Our
own: the bandwidths, and what is done about failed trials and duplicates (docs/decisions/0014).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from halvard.samplers.cube import Draw
from halvard.samplers.evidence import Evidence, gather
from halvard.samplers.parzen import Parzen
from halvard.samplers.random import Random
from halvard.samplers.sampler import Tried
from halvard.samplers.seeded import generator
from halvard.space import decode, encode
from halvard.study import StudySpec, Value

FEWEST = 10
RANDOM_SHARE = 0.25
CANDIDATES = 24
GOOD_SHARE = 0.1
MOST_GOOD = 25
MOST_BAD = 100  # of each kind: so the cost of a proposal does not grow with the results

Trials = Sequence[Mapping[str, Value]]


class Tpe:
    """Draws where the model expects good trials; at random where there is no model, and always for a share."""

    def __init__(self, spec: StudySpec) -> None:
        """Takes the space, the goal and the seed of a study."""
        self._parameters = spec.parameters
        self._sign = spec.objective.sign
        self._needed = max(FEWEST, len(spec.parameters) + 3)
        self._seed = spec.seed
        self._random = Random(len(spec.parameters), spec.seed)

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:
        """Yields the candidates, the most promising first, then random points; `why` says which, and why."""
        evidence = gather(tried, self._needed, self._sign)
        if isinstance(evidence, str):
            return self._at_random(index, evidence)
        rng = generator(self._seed, index, 0)
        if rng.random() < RANDOM_SHARE:
            return self._at_random(index, f"as {RANDOM_SHARE:.0%} are")
        why = f"new trial: tpe on {len(evidence.ranked)} results at rung {evidence.rung}"
        candidates = (Draw(point, why) for point in self._candidates(evidence, rng))
        return chain(candidates, self._random.others(index, "new trial: random, what tpe proposed was tried before"))

    def _at_random(self, index: int, why: str) -> Iterator[Draw]:
        return (draw._replace(why=f"new trial: random, {why}") for draw in self._random.draws(index, {}))

    def _candidates(self, evidence: Evidence, rng: np.random.Generator) -> list[list[float]]:
        good, bad = (Parzen(self._parameters, trials) for trials in split(evidence))
        points = good.sample(CANDIDATES, rng)
        values = np.array([encode(self._parameters, decode(self._parameters, point)) for point in points])
        ratio = good.density(values) / bad.density(values)
        best_first: list[list[float]] = points[np.argsort(-ratio, kind="stable")].tolist()
        return best_first


def split(evidence: Evidence) -> tuple[Trials, Trials]:
    """Returns the good trials and the bad ones: of too many bad ones every few, of too many pending ones the latest.

    No more hopeless ones than bad results, or a study in which most trials diverge would learn nothing else.
    """
    ranked = evidence.ranked
    good = min(math.ceil(GOOD_SHARE * len(ranked)), MOST_GOOD)
    worse = thinned(ranked[good:], MOST_BAD)
    return ranked[:good], [*worse, *thinned(evidence.hopeless, len(worse)), *evidence.pending[-MOST_BAD:]]


def thinned(trials: Trials, most: int) -> Trials:
    """Returns at most that many of the trials, evenly spread."""
    return trials[:: math.ceil(len(trials) / most)] if trials else trials

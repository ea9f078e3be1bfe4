"""The Tree-structured Parzen Estimator: where good trials are dense and bad ones are not, there is the next one.

From Bergstra et al. (NeurIPS 2011): the split of trials into good and bad ones, a Parzen estimator of each with the
prior as one of its kernels, and as proposal the one of some points drawn from the good estimate at which the ratio of
the two is largest. From BOHB (Falkner et al., ICML 2018): the results of the highest rung that has enough of them,
kernels that are products over all parameters, and a share drawn at random whatever the model says. From Optuna: the
best tenth is good, at most 25, and pending trials count as bad, so that many at once do not all go to one place. Our
own: the bandwidths, and what is done about failed trials and duplicates (docs/decisions/0014).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from halvard.samplers.evidence import Evidence, thinned
from halvard.samplers.parzen import Parzen, densest
from halvard.study import StudySpec, Value

FEWEST = 10
RANDOM_SHARE = 0.25
CANDIDATES = 24
GOOD_SHARE = 0.1
MOST_GOOD = 25
MOST_BAD = 100  # of each kind: so the cost of a proposal does not grow with the results

Trials = Sequence[Mapping[str, Value]]


class Tpe:
    """Learns where good trials are denser than bad ones."""

    name = "tpe"
    random_share = RANDOM_SHARE

    def __init__(self, spec: StudySpec) -> None:
        """Takes the space of a study."""
        self._parameters = spec.parameters
        self.needed = max(FEWEST, len(spec.parameters) + 3)

    def candidates(self, evidence: Evidence, rng: np.random.Generator) -> list[list[float]]:
        """Returns points drawn from the good trials, those where these are densest against the bad ones first."""
        good, bad = (Parzen(self._parameters, trials) for trials in split(evidence))
        return densest(self._parameters, good.sample(CANDIDATES, rng), good, bad)


def split(evidence: Evidence) -> tuple[Trials, Trials]:
    """Returns the good trials and the bad ones: of too many bad ones every few, of too many pending ones the latest.

    No more hopeless ones than bad results, or a study in which most trials diverge would learn nothing else.
    """
    ranked = evidence.ranked
    good = min(math.ceil(GOOD_SHARE * len(ranked)), MOST_GOOD)
    worse = thinned(ranked[good:], MOST_BAD)
    return ranked[:good], [*worse, *thinned(evidence.hopeless, len(worse)), *evidence.pending[-MOST_BAD:]]

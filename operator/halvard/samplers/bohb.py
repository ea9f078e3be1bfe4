"""The model of BOHB (Falkner, Klein and Hutter, ICML 2018, algorithm 2), with the constants that it comes with.

Like tpe it compares where good and bad trials of the highest rung with enough results are dense. Unlike it, its
estimators have no prior, it looks for its candidates in a wider circle, and does not see what is pending. With
hyperband as the scheduler this is BOHB; what is done about failed trials is as in tpe (docs/decisions/0014).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from halvard.samplers.evidence import Evidence, thinned
from halvard.samplers.parzen import Parzen, densest
from halvard.study import StudySpec, Value

RANDOM_SHARE = 1 / 3
CANDIDATES = 64
GOOD_SHARE = 0.15
WIDER = 3.0
NARROWEST = 1e-3
MOST = 200  # of the good and of the bad: our own, so the cost of a proposal does not grow with the results

Trials = Sequence[Mapping[str, Value]]


class Bohb:
    """Learns where good trials are denser than bad ones."""

    name = "bohb"
    random_share = RANDOM_SHARE

    def __init__(self, spec: StudySpec) -> None:
        """Takes the space of a study."""
        self._parameters = spec.parameters
        self._fewest = len(spec.parameters) + 1
        self.needed = self._fewest + 2

    def candidates(self, evidence: Evidence, rng: np.random.Generator) -> list[list[float]]:
        """Returns points drawn around the good trials, those where these are densest against the bad ones first."""
        good, bad = (
            Parzen(self._parameters, trials, prior=False, narrowest=NARROWEST) for trials in self._split(evidence)
        )
        return densest(self._parameters, good.sample(CANDIDATES, rng, WIDER), good, bad)

    def _split(self, evidence: Evidence) -> tuple[Trials, Trials]:
        """The good trials and the bad ones; while there are few, some are both, as neither may be fewer than d + 1."""
        ranked = evidence.ranked
        good = max(self._fewest, int(GOOD_SHARE * len(ranked)))
        worse = ranked[-max(self._fewest, len(ranked) - good) :]
        bad = [*worse, *thinned(evidence.hopeless, len(worse))]
        return thinned(ranked[:good], MOST), thinned(bad, MOST)

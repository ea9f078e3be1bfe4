"""A Gaussian process of the results, and as the next trial the point at which that is most worth looking.

Worth looking is, as the study says: the expected improvement (Jones, Schonlau and Welch, J. Global Optimization 1998),
a confidence bound (Srinivas et al., ICML 2010) or the probability of improvement (Kushner, J. Basic Engineering 1964).
Pending trials count as if they had come out as expected (the kriging believer of Ginsbourger, Le Riche and Carraro,
2010), so that many at once do not all go to one place. Our own: results count by their rank (docs/decisions/0014).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.normal import log_cdf, normal_scores
from halvard.forecast.process import Process, fit
from halvard.samplers.candidates import Candidates
from halvard.samplers.evidence import Evidence, thinned
from halvard.space import encode
from halvard.study import StudySpec, Value

FEWEST = 10
RANDOM_SHARE = 0.25
BEST, OTHERS, HOPELESS, PENDING = 100, 60, 40, 100  # trials of each kind that are learnt from at most, for the cost
NEAR_SHARE = 0.05  # of the results: the best, near which some of the candidates are
CONFIDENCE = 2.0  # standard deviations; theory has it grow slowly with the trials
MARGIN = 0.1  # an improvement by less than this share of a standard deviation of the results is none

Array = NDArray[np.float64]
Trials = Sequence[Mapping[str, Value]]
Acquisition = Callable[[Array, Array, float], Array]


class Gp:
    """Learns the normal score of a trial's result as a function of its parameters."""

    name = "gp"
    needed = FEWEST
    random_share = RANDOM_SHARE

    def __init__(self, spec: StudySpec) -> None:
        """Takes the space of a study, and what its sampler is to look for."""
        self._parameters = spec.parameters
        self._choices = tuple(len(parameter.choice or ()) for parameter in spec.parameters)
        self._candidates = Candidates(spec.parameters)
        self._acquisition = ACQUISITIONS[spec.sampler.gp.acquisition if spec.sampler.gp else "ei"]

    def candidates(self, evidence: Evidence, rng: np.random.Generator) -> list[list[float]]:
        """Returns points of the unit cube, those most worth looking at first."""
        process, incumbent = self._learnt(evidence, rng)
        best = evidence.ranked[: math.ceil(NEAR_SHARE * len(evidence.ranked))]
        points = self._candidates.draw(self._encoded(best), rng)
        mean, variance = process.predict(self._candidates.encoded(points))
        worth = self._acquisition(mean, np.sqrt(variance), incumbent)
        best_first: list[list[float]] = points[np.argsort(-worth, kind="stable")].tolist()
        return best_first

    def _learnt(self, evidence: Evidence, rng: np.random.Generator) -> tuple[Process, float]:
        """The process of results and pending trials, and the lowest score that it expects of any of them."""
        trials, targets = observed(evidence)
        points = self._encoded(trials)
        prior = fit(points, targets, np.zeros(len(targets)), self._choices, rng)
        process = Process(prior, points, targets, np.zeros(len(targets)))
        if evidence.pending:
            pending = self._encoded(evidence.pending[-PENDING:])
            expected, _ = process.predict(pending)
            points, targets = np.vstack([points, pending]), np.append(targets, expected)
            process = Process(prior, points, targets, np.zeros(len(targets)))
        return process, float(process.predict(points)[0].min())

    def _encoded(self, trials: Trials) -> Array:
        return np.array([encode(self._parameters, trial) for trial in trials])


def observed(evidence: Evidence) -> tuple[Trials, Array]:
    """Returns the trials to learn from, and the normal scores (n,) of their results, less being better.

    Of many, the best and every few of the others. Those that are worse than all results have the same score; no more
    of them count than there are results.
    """
    hopeless = min(len(evidence.hopeless), len(evidence.ranked))
    scores = normal_scores(np.array([*evidence.values, *[math.inf] * hopeless]))
    ranked = range(len(evidence.ranked))
    places = [*ranked[:BEST], *thinned(ranked[BEST:], OTHERS)]
    worst = thinned(evidence.hopeless, min(hopeless, HOPELESS))
    trials = [*(evidence.ranked[place] for place in places), *worst]
    return trials, np.append(scores[places], [scores[-1]] * len(worst))


def expected_improvement(mean: Array, deviation: Array, incumbent: float) -> Array:
    """Returns by how much (n,) a score is expected to be below the incumbent."""
    below = incumbent - mean
    z = below / np.maximum(deviation, 1e-9)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    improvement: Array = below * np.exp(log_cdf(z)) + deviation * density
    return improvement


def confidence_bound(mean: Array, deviation: Array, incumbent: float) -> Array:  # noqa: ARG001  # what others go by
    """Returns how low (n,) a score may well be, the lowest being the largest."""
    return CONFIDENCE * deviation - mean


def probability_of_improvement(mean: Array, deviation: Array, incumbent: float) -> Array:
    """Returns what grows with the probability (n,) of a score that is below the incumbent by a margin."""
    return (incumbent - MARGIN - mean) / np.maximum(deviation, 1e-9)


ACQUISITIONS: Mapping[str, Acquisition] = {
    "ei": expected_improvement,
    "ucb": confidence_bound,
    "pi": probability_of_improvement,
}

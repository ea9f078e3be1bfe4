"""The curve model: from where a trial stands among others at its rung to where it will stand at the top.

For every rung a Bayesian ridge regression of the change to the next rung's score; chained up to the top, each trial has
an expected final score and a variance. Without results above a rung, a trial is expected to stay where it is.
"""

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.ridge import Ridge

DEVIATIONS = np.array([1.0, 0.3, 0.3])  # prior ones, of the coefficients of the design below
LARGEST = 8.0  # no normal score is beyond it

Array = NDArray[np.float64]


def final_scores(scores: Array) -> tuple[Array, Array]:
    """Returns mean (n,) and variance (n,) of each trial's final score, NaN where it has no result yet.

    Takes the scores (n, rungs), NaN where there are none.
    """
    count, rungs = scores.shape
    mean, before, variance = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count)
    for level in range(rungs):
        if level:
            model = _step(scores, level)
            change, spread = model.predict(_design(mean, before))
            slope = 1 + model.coefficients[1] + model.coefficients[2]
            before, mean = mean, np.clip(mean + change, -LARGEST, LARGEST)
            variance = np.minimum(slope**2 * variance + spread, LARGEST**2)
        known = ~np.isnan(scores[:, level])
        mean[known], variance[known] = scores[known, level], 0.0
        if level:
            before[known] = scores[known, level - 1]
    return mean, variance


def _step(scores: Array, level: int) -> Ridge:
    """The change of the score from the rung below to this one, learnt from those that have both."""
    pairs = ~np.isnan(scores[:, level - 1 : level + 1]).any(axis=1)
    below, score = scores[pairs, level - 1], scores[pairs, level]
    before = scores[pairs, level - 2] if level > 1 else np.full(len(below), np.nan)
    return Ridge(_design(below, before), score - below, DEVIATIONS)


def _design(score: Array, before: Array) -> Array:
    """One, the score, and by how much it has changed since the rung below, nothing where there is none."""
    return np.stack([np.ones(len(score)), score, np.where(np.isnan(before), 0.0, score - before)], axis=1)

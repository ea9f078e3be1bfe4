"""The curve model: from where a trial stands among others at its rung to where it will stand at the top.

For every rung a Bayesian ridge regression of the change to the next rung's score; chained up to the top, each trial has
an expected final score and a variance. Without results above a rung, a trial is expected to stay where it is.
"""

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.ridge import Ridge

DEVIATIONS = np.array([1.0, 0.3, 0.3])  # prior ones, of the coefficients of the design below
ALONE = np.array([0.5, 0.3, 0.3])  # the same for trials by themselves: with 1.0, most might end nearly anywhere
LARGEST = 8.0  # no normal score is beyond it

Array = NDArray[np.float64]


def final_scores(scores: Array, *, alone: bool = False) -> tuple[Array, Array]:
    """Returns mean (n,) and variance (n,) of each trial's final score, NaN where it has no result yet.

    Takes the scores (n, rungs), NaN where there are none. With `alone` they are what to expect of a trial by itself:
    what a rung has changed for all, the next is then expected to change again.
    """
    count, rungs = scores.shape
    common, deviations = 0.0, ALONE if alone else DEVIATIONS
    mean, before, variance = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count)
    for level in range(rungs):
        if level:
            model = _step(scores, level, common, deviations)
            change, spread = model.predict(_design(mean, before))
            slope = 1 + model.coefficients[1] + model.coefficients[2]
            before, mean = mean, np.clip(mean + common + change, -LARGEST, LARGEST)
            variance = np.minimum(slope**2 * variance + spread, LARGEST**2)
            if alone:
                common += float(model.coefficients[0])
        known = ~np.isnan(scores[:, level])
        mean[known], variance[known] = scores[known, level], 0.0
        if level:
            before[known] = scores[known, level - 1]
    return mean, variance


def _step(scores: Array, level: int, common: float, deviations: Array) -> Ridge:
    """The change of the score from the rung below, beyond a common one, learnt from those that have both."""
    pairs = ~np.isnan(scores[:, level - 1 : level + 1]).any(axis=1)
    below, score = scores[pairs, level - 1], scores[pairs, level]
    before = scores[pairs, level - 2] if level > 1 else np.full(len(below), np.nan)
    return Ridge(_design(below, before), score - below - common, deviations)


def _design(score: Array, before: Array) -> Array:
    """One, the score, and by how much it has changed since the rung below, nothing where there is none."""
    return np.stack([np.ones(len(score)), score, np.where(np.isnan(before), 0.0, score - before)], axis=1)

"""The curve model: from where a trial stands among others at its rung to where it will stand at the top.

For every rung a Bayesian ridge regression of the change to the next rung's score; chained up to the top, each trial has
an expected final score and a variance. Without results above a rung, a trial is expected to stay where it is.
"""

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.ridge import Ridge

INTERCEPT, SLOPE, POINT = 1.0, 0.3, 0.4  # prior standard deviations
LARGEST = 8.0  # no normal score is beyond it

Array = NDArray[np.float64]


def final_scores(scores: Array, features: Array) -> tuple[Array, Array]:
    """Returns mean (n,) and variance (n,) of each trial's final score, NaN where it has no result yet.

    Takes the scores (n, rungs), NaN where there are none, and features of the configurations (n, f).
    """
    count, rungs = scores.shape
    mean, variance, before = np.full(count, np.nan), np.zeros(count), np.full(count, np.nan)
    for level in range(rungs):
        known = ~np.isnan(scores[:, level])
        mean[known], variance[known] = scores[known, level], 0.0
        if level > 0:
            before[known] = scores[known, level - 1]
        if level == rungs - 1:
            break
        design = _design(mean, before, features)
        pairs = known & ~np.isnan(scores[:, level + 1])
        model = Ridge(design[pairs], scores[pairs, level + 1] - scores[pairs, level], _deviations(features))
        going = ~np.isnan(mean)
        change, spread = model.predict(design[going])
        slope = 1 + model.coefficients[1] + model.coefficients[2]
        before = mean.copy()
        mean[going] = np.clip(mean[going] + change, -LARGEST, LARGEST)
        variance[going] = np.minimum(slope**2 * variance[going] + spread, LARGEST**2)
    return mean, variance


def _design(score: Array, before: Array, features: Array) -> Array:
    """One, the score, by how much it has changed since the rung below, and the configuration."""
    change = np.where(np.isnan(before), 0.0, score - before)
    return np.column_stack([np.ones(len(score)), score, change, features])


def _deviations(features: Array) -> Array:
    return np.array([INTERCEPT, SLOPE, SLOPE, *[POINT] * features.shape[1]])

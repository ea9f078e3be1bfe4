"""The normal distribution, where its tails matter and numbers come by the thousand."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Press et al., Numerical Recipes, section 6.2: erfc with a relative error below 1.2e-7 everywhere
_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807,
    -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223,
)  # fmt: skip


def log_cdf(z: Array) -> Array:
    """Returns log Phi(z): below zero by the tail, so that it is a finite number where Phi is none any more."""
    x = np.abs(z) / np.sqrt(2)
    t = 1 / (1 + x / 2)
    tail = np.log(t / 2) - x**2 + np.polyval(_ERFC, t)
    log: Array = np.where(z < 0, tail, np.log1p(-np.exp(tail)))
    return log


_FAR = -30.0  # below, phi(z) / z^2 is all there is of an expected improvement


def log_expected_improvement(z: Array) -> Array:
    """Returns log(phi(z) + z Phi(z)): by how much a standard normal number is below z, above counting as nothing."""
    density = -(z**2) / 2 - np.log(2 * np.pi) / 2
    near = np.clip(z, _FAR, -_FAR)
    mills = np.exp(log_cdf(near) + near**2 / 2) * np.sqrt(2 * np.pi)  # Phi / phi
    improvement = np.log1p(near * mills) - near**2 / 2 - np.log(2 * np.pi) / 2
    far = density - 2 * np.log(np.maximum(-z, 1.0))
    log: Array = np.where(z < _FAR, far, np.where(z > -_FAR, np.log(np.maximum(z, 1.0)), improvement))
    return log


_GRID = np.linspace(-8, 8, 3201)
_CDF = np.exp(log_cdf(_GRID))


def normal_scores(values: Array) -> Array:
    """Returns the normal score (n,) of each value's average rank among all (n,); infinities are the worst, and equal.

    That is what a normal distribution has at the share (rank - 1/2) / n.
    """
    _, scores, place = normal_scale(values)
    each: Array = scores[place]
    return each


def normal_scale(values: Array) -> tuple[Array, Array, NDArray[np.intp]]:
    """Returns the different values (m,), the least first, their normal scores (m,), and which each value (n,) is."""
    different, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return different, np.interp((ranks - 0.5) / len(values), _CDF, _GRID), place

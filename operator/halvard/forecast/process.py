"""Gaussian-process regression over the unit cube, exact, in numpy, for a few hundred points.

From Rasmussen and Williams, Gaussian Processes for Machine Learning (MIT Press 2006): algorithm 2.1 (prediction and
marginal likelihood by a Cholesky factor), section 4.2.1 (the Matern kernel), section 5.4.2 (leaving one out). The trend
is our own: a kernel of sums of parabolas, one in each dimension, beside the Matern one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIT_POINTS = 100  # so the cost of a fit does not grow with the points
DEFAULT_LENGTHS = (0.2, 0.4, 0.8, 1.6)  # alike in all dimensions: the first candidates
ANYWHERE, NEARBY = 28, 16  # candidates drawn from the whole range, then near the best so far
NEAR = 0.5  # standard deviation of their logarithms
# the range of the hyperparameters, and where the first candidates have theirs; variances as shares of the targets'
LENGTHS = (0.1, 10.0)
SIGNALS, DEFAULT_SIGNAL = (0.1, 4.0), 1.0
NUGGETS, DEFAULT_NUGGET = (1e-4, 1.0), 0.02
JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # of the largest variance
LARGEST = 1e100  # its square is still a float

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of a function on the unit cube of d dimensions before it was seen anywhere.

    Its variances are in the units of the targets squared.
    """

    choices: tuple[int, ...]  # (d,): how many values a coordinate chooses from, 0 where it is a number
    lengths: tuple[float, ...]  # (d,): two values of a choice are a distance of 1 apart
    mean: float
    signal: float  # the variance of the function, without its trend
    nugget: float  # by how much what is seen varies, beside the noise that is given with each target
    trend: bool


class Process:
    """What is believed of that function after it was seen at some points."""

    def __init__(self, prior: Prior, points: Array, targets: Array, noise: Array) -> None:
        """Takes points (n, d), NaN where a coordinate is not active, targets (n,) and noise variances (n,).

        With no points, all is as the prior has it. Raises ValueError where the shapes do not fit together, a target or
        a variance is not finite (or beyond 1e100), or a variance is negative.
        """
        _check(prior.choices, points, targets, noise)
        self.prior = prior
        self._features = features(prior.choices, points)
        self._noise = noise + prior.nugget
        self._residuals = targets - prior.mean
        factor = cholesky(covariance(prior, self._features, self._features) + np.diag(self._noise))
        self._whitening = np.linalg.inv(factor)  # its transpose times itself is the inverse of the covariance
        self._white = self._whitening @ self._residuals

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Returns mean (m,) and variance (m,) of the function at points (m, d); what is seen varies more."""
        at = features(self.prior.choices, points)
        white = self._whitening @ covariance(self.prior, self._features, at)
        explained = np.einsum("nm,nm->m", white, white)
        return self.prior.mean + self._white @ white, np.maximum(variance(self.prior, at) - explained, 0.0)

    def leave_one_out(self) -> tuple[Array, Array]:
        """Returns mean (n,) and variance (n,) of the function at each point, had it been seen at all others alone."""
        seen = 1 / np.einsum("nm,nm->m", self._whitening, self._whitening)  # of the target
        error = seen * (self._white @ self._whitening)
        return self.prior.mean + self._residuals - error, np.maximum(seen - self._noise, 0.0)


def fit(points: Array, targets: Array, noise: Array, choices: tuple[int, ...], rng: np.random.Generator) -> Prior:
    """Returns the prior with the largest marginal likelihood among candidates: defaults, and some drawn with `rng`.

    Each is tried with the trend and without. Takes what a Process takes; of more than 100 points it looks at 100,
    evenly spread in the order given. The mean is that of the targets. Where all targets are equal the function is taken
    to vary by 1. Raises ValueError as Process does, and where there are no points.
    """
    _check(choices, points, targets, noise)
    if not len(targets):
        raise ValueError("points: a fit needs at least one")
    mean, scale = float(targets.mean()), float(targets.std())
    if scale <= max(1e-12 * float(np.abs(targets).max()), 1 / LARGEST):
        scale = 1.0
    some = np.linspace(0, len(targets) - 1, min(len(targets), FIT_POINTS)).round().astype(int)
    at = features(choices, points[some])

    def best(candidates: Array, *, trend: bool) -> tuple[float, Array, Prior]:
        """The first candidate with the largest likelihood."""
        found = []
        for candidate in candidates:
            *lengths, signal, nugget = np.exp(candidate).tolist()
            prior = Prior(choices, tuple(lengths), mean, signal * scale**2, nugget * scale**2, trend)
            found.append((_log_likelihood(prior, at, targets[some], noise[some]), candidate, prior))
        return max(found, key=lambda each: each[0])

    low, high = np.log([*[LENGTHS] * len(choices), SIGNALS, NUGGETS]).T
    defaults = np.log([[*[length] * len(choices), DEFAULT_SIGNAL, DEFAULT_NUGGET] for length in DEFAULT_LENGTHS])
    candidates = np.vstack([defaults, rng.uniform(low, high, (ANYWHERE, len(low)))])
    steps = NEAR * rng.standard_normal((NEARBY, len(low)))
    found = []
    for trend in (False, True):
        first = best(candidates, trend=trend)
        found += [first, best(np.clip(first[1] + steps, low, high), trend=trend)]
    return max(found, key=lambda each: each[0])[2]


def features(choices: tuple[int, ...], points: Array) -> Array:
    """Returns points (n, d) as (n, f), in which the distance of two choices is 1.

    A coordinate that is not active is in the middle, half a squared distance away from each choice: it is the value of
    the parameter that makes it active which tells such points from others.
    """
    if points.shape[1:] != (len(choices),):
        raise ValueError(f"points: the shape is {points.shape}, not (n, {len(choices)})")
    columns = [np.empty((len(points), 0))]
    for place, count in enumerate(choices):
        column = points[:, place, None]
        if count:
            columns.append(np.sqrt(0.5) * (np.minimum(np.floor(column * count), count - 1) == np.arange(count)))
        else:
            columns.append(np.where(np.isnan(column), 0.5, column))
    return np.hstack(columns)


def covariance(prior: Prior, a: Array, b: Array) -> Array:
    """Returns the covariance (n, m) of the function at features a (n, f) with itself at features b (m, f)."""
    lengths = np.array(prior.lengths)[_dimensions(prior.choices)]
    kernel = _matern(a / lengths, b / lengths)
    return prior.signal * (kernel + _trend(prior.choices, a, b) if prior.trend else kernel)


def variance(prior: Prior, a: Array) -> Array:
    """Returns the diagonal (n,) of the covariance at features a (n, f)."""
    centred = _centred(prior.choices, a)
    trend = (centred**2 + 4 * centred**4).sum(axis=1) if prior.trend else np.zeros(len(a))
    return prior.signal * (1 + trend)


def cholesky(matrix: Array) -> Array:
    """Returns the lower factor of a covariance (n, n), with as little added to its diagonal as it takes."""
    for jitter in JITTERS:
        added = jitter * float(matrix.max(initial=0.0)) * np.eye(len(matrix))
        try:
            return np.asarray(np.linalg.cholesky(matrix + added), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
    raise ValueError("the covariance of the points is not positive definite")


def _log_likelihood(prior: Prior, at: Array, targets: Array, noise: Array) -> float:
    """The logarithm of the marginal likelihood of targets (n,) at features (n, f), up to a constant.

    The targets are one more row below the covariance: the factor then has them solved for it in its last row.
    """
    count = len(at)
    bordered = np.empty((count + 1, count + 1))
    bordered[:count, :count] = covariance(prior, at, at) + np.diag(noise + prior.nugget)
    bordered[count, :count] = bordered[:count, count] = residuals = targets - prior.mean
    bordered[count, count] = prior.nugget + 2 * residuals @ residuals / prior.nugget  # cannot be explained whole
    factor = cholesky(bordered)
    white, diagonal = factor[count, :count], np.diagonal(factor)[:count]
    return -0.5 * float(white @ white) - float(np.log(diagonal).sum())


def _dimensions(choices: tuple[int, ...]) -> NDArray[np.intp]:
    """The dimension (f,) that each feature belongs to."""
    return np.repeat(np.arange(len(choices)), np.maximum(choices, 1).astype(int) if choices else 0)


def _matern(a: Array, b: Array) -> Array:
    """Matern's kernel with nu = 5/2 (n, m), of features (n, f) and (m, f) in units of the lengths."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    distances = np.sqrt(5 * np.maximum(squares, 0.0))
    kernel: Array = (1 + distances + distances**2 / 3) * np.exp(-distances)
    return kernel


def _trend(choices: tuple[int, ...], a: Array, b: Array) -> Array:
    one, other = _centred(choices, a), _centred(choices, b)
    trend: Array = one @ other.T + 4 * one**2 @ (other**2).T
    return trend


def _centred(choices: tuple[int, ...], a: Array) -> Array:
    """The features that are numbers, from the middle: one that is not active adds nothing to a trend."""
    numbers = (np.array(choices) == 0)[_dimensions(choices)]
    centred: Array = a[:, numbers] - 0.5
    return centred


def _check(choices: tuple[int, ...], points: Array, targets: Array, noise: Array) -> None:
    if points.shape != (len(targets), len(choices)) or noise.shape != targets.shape or targets.ndim != 1:
        raise ValueError(
            f"points {points.shape}, targets {targets.shape} and noise {noise.shape} do not fit together: "
            f"(n, {len(choices)}), (n,) and (n,) do"
        )
    if not (np.abs(targets) <= LARGEST).all():
        raise ValueError(f"targets: finite numbers of at most {LARGEST} are needed")
    if not ((noise >= 0) & (noise <= LARGEST)).all():
        raise ValueError(f"noise: variances from 0 to {LARGEST} are needed")

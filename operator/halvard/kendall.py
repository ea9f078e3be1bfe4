"""Kendall's tau-b, its interval, and what it would be had nobody been selected (pure)."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NORMAL = NormalDist()
_QUANTILE = _NORMAL.inv_cdf(0.95)  # of a 90 % interval
_NEARLY_ONE = 0.999  # beyond it Fisher's transformation is of no use


class Tau(NamedTuple):
    """An estimate of tau and the ends of its 90 % interval."""

    value: float
    low: float
    high: float


def kendall(first: Floats, second: Floats) -> Tau | None:
    """Returns tau-b of two values each of at least 5 trials; None where all of one are equal. Takes O(n^2).

    The interval is Fisher's: of its two standard errors, that of the normal distribution (Fieller, Hartley and Pearson,
    Biometrika 44, 1957), which holds for few trials, and the asymptotic one (Brown and Benedetti, JASA 72, 1977), which
    holds for any distribution and with ties, the larger counts.
    """
    one, other = _order(first), _order(second)
    agrees, differs, differs_too = (
        matrix.sum(axis=1, dtype=np.float64) for matrix in (one * other, one * one, other * other)
    )
    count, pairs = len(first), math.sqrt(differs.sum() * differs_too.sum())
    if pairs == 0:
        return None
    tau = float(agrees.sum() / pairs)
    # what each trial adds to tau: its derivative by the trial's share
    adds = 2 * count * (agrees / pairs - tau / 2 * (differs / differs.sum() + differs_too / differs_too.sum()))
    inner = min(max(tau, -_NEARLY_ONE), _NEARLY_ONE)
    error = max(
        math.sqrt(0.437 / (count - 4)),
        math.sqrt(float(adds @ adds) / (count * (count - 2))) / (1 - inner**2),
    )
    centre = math.atanh(inner)
    low, high = math.tanh(centre - _QUANTILE * error), math.tanh(centre + _QUANTILE * error)
    return Tau(tau, min(low, tau), max(high, tau))


def _order(values: Floats) -> NDArray[np.int8]:
    """Returns for each pair whether the first is larger (1), the second (-1), or they are equal (0)."""
    larger = (values[:, None] > values).astype(np.int8)
    return larger - larger.T


def unselected(tau: Tau, everyone: Floats, chosen: Floats) -> Tau:
    """Returns tau over everyone, where it is known of those alone that were chosen by their first value.

    The correction for range restriction (Thorndike, Personnel Selection, 1949, case 2), on normal scores of `everyone`
    and Greiner's relation of tau to the correlation. It extrapolates: it takes what holds among the chosen for true of
    all others.
    """
    spread = _scores(everyone, chosen).std()
    if spread == 0:
        return tau
    return Tau(*(_widened(value, 1 / float(spread)) for value in tau))


def _widened(tau: float, ratio: float) -> float:
    r = math.sin(math.pi / 2 * tau)
    widened = r * ratio / math.sqrt(1 + r**2 * (ratio**2 - 1))
    return 2 / math.pi * math.asin(min(max(widened, -1.0), 1.0))  # rounding may make it a little more


def _scores(everyone: Floats, chosen: Floats) -> Floats:
    """Returns the normal scores of the chosen among everyone; equal values have equal ones."""
    ordered = np.sort(everyone)
    places = (np.searchsorted(ordered, chosen, "left") + np.searchsorted(ordered, chosen, "right")) / 2
    return np.array([_NORMAL.inv_cdf(place) for place in (places / len(ordered)).tolist()])

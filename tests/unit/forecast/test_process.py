"""Gaussian processes, against the formulas written out."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.forecast.process import Array, Prior, Process, _log_likelihood, features, fit

NONE = np.empty(0)
MIXED = Prior(
    choices=(0, 3, 0), lengths=(0.3, 0.7, 2.0), mean=5.0, signal=2.0, nugget=0.01, trend=True
)  # two numbers, a choice between them


def points_of(count: int, seed: int = 0, dimensions: int = 3) -> Array:
    """Some coordinates, one in ten not active."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, dimensions))
    return np.where(rng.random(points.shape) < 0.1, np.nan, points)


def kernel(prior: Prior, one: Sequence[float], other: Sequence[float]) -> float:
    """The covariance of two points, as the documentation has it."""
    square, trend = 0.0, 0.0
    for u, v, count, length in zip(one, other, prior.choices, prior.lengths, strict=True):
        if count:
            known = not (np.isnan(u) or np.isnan(v))
            same = int(u * count) == int(v * count) if known else np.isnan(u) and np.isnan(v)
            square += (0.0 if same else 1.0 if known else 0.5) / length**2
        else:
            a, b = (0.0 if np.isnan(w) else w - 0.5 for w in (u, v))
            square += ((a - b) / length) ** 2
            trend += a * b + 4 * a**2 * b**2
    r = np.sqrt(square)
    matern = (1 + np.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-np.sqrt(5) * r)
    return float(prior.signal * (matern + (trend if prior.trend else 0)))


def covariance(prior: Prior, a: Array, b: Array) -> Array:
    return np.array([[kernel(prior, one, other) for other in b] for one in a]).reshape(len(a), len(b))


def regression(prior: Prior, points: Array, targets: Array, noise: Array, at: Array) -> tuple[Array, Array]:
    """Mean and variance by inverting the covariance."""
    inverse = np.linalg.inv(covariance(prior, points, points) + np.diag(noise + prior.nugget))
    across = covariance(prior, at, points)
    mean = prior.mean + across @ inverse @ (targets - prior.mean)
    variance = np.diagonal(covariance(prior, at, at) - across @ inverse @ across.T)
    return mean, variance


@pytest.mark.parametrize("prior", [MIXED, replace(MIXED, trend=False), replace(MIXED, choices=(0, 0, 0))])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_prediction_is_that_of_the_formulas(prior: Prior, count: int) -> None:
    points, at, rng = points_of(count), points_of(20, seed=1), np.random.default_rng(2)
    targets, noise = 5 + rng.standard_normal(count), rng.random(count)
    mean, variance = Process(prior, points, targets, noise).predict(at)
    expected_mean, expected_variance = regression(prior, points, targets, noise, at)
    assert mean == pytest.approx(expected_mean, rel=1e-9)
    assert variance == pytest.approx(expected_variance, abs=1e-9)


@pytest.mark.parametrize("prior", [MIXED, replace(MIXED, trend=False)])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_leaving_one_out_is_a_regression_without_it(prior: Prior, count: int) -> None:
    points, rng = points_of(count), np.random.default_rng(2)
    targets, noise = 5 + rng.standard_normal(count), rng.random(count)
    without = []
    for place in range(count):
        rest = np.arange(count) != place
        mean, variance = regression(prior, points[rest], targets[rest], noise[rest], points[[place]])
        without.append((mean[0], variance[0]))
    means, variances = Process(prior, points, targets, noise).leave_one_out()
    assert means == pytest.approx([mean for mean, _ in without], rel=1e-9)
    assert variances == pytest.approx([variance for _, variance in without], abs=1e-8)


def likelihood(prior: Prior, points: Array, targets: Array, noise: Array) -> float:
    """Up to a constant."""
    return _log_likelihood(prior, features(prior.choices, points), targets, noise)


def test_the_likelihood_is_that_of_a_normal_distribution_up_to_a_constant() -> None:
    points, rng = points_of(20), np.random.default_rng(2)
    targets, noise = 5 + rng.standard_normal(20), rng.random(20)
    matrix = covariance(MIXED, points, points) + np.diag(noise + MIXED.nugget)
    residuals = targets - MIXED.mean
    expected = -0.5 * residuals @ np.linalg.inv(matrix) @ residuals - 0.5 * np.linalg.slogdet(matrix)[1]
    assert likelihood(MIXED, points, targets, noise) == pytest.approx(expected)


def test_without_points_all_is_as_the_prior_has_it() -> None:
    process = Process(MIXED, np.empty((0, 3)), NONE, NONE)
    at = points_of(5)
    mean, variance = process.predict(at)
    assert mean.tolist() == [5.0] * 5
    assert variance == pytest.approx(np.diagonal(covariance(MIXED, at, at)))
    assert process.leave_one_out()[0].size == 0


def test_the_same_point_again_and_again_is_one_point_known_better() -> None:
    prior = replace(MIXED, nugget=1e-12)
    points = np.repeat([[0.2, 0.5, 0.7]], 200, axis=0)
    mean, variance = Process(prior, points, np.full(200, 6.0), np.zeros(200)).predict(points[:1])
    assert mean == pytest.approx(6.0, abs=1e-3)
    assert variance == pytest.approx(0.0, abs=1e-3)


# --- the fit


def fitted(points: Array, targets: Array, seed: int = 0) -> Prior:
    choices = (0,) * points.shape[1]
    return fit(points, targets, np.zeros(len(targets)), choices, np.random.default_rng(seed))


def test_a_fit_is_better_than_a_default_where_one_dimension_matters() -> None:
    points = points_of(60, dimensions=4)
    points = np.where(np.isnan(points), 0.5, points)
    targets = np.sin(9 * points[:, 0])
    prior = fitted(points, targets)
    assert prior.lengths[0] < min(prior.lengths[1:])
    at = np.random.default_rng(1).random((100, 4))
    default = replace(prior, lengths=(0.4,) * 4)

    def error(prior: Prior) -> float:
        mean, _ = Process(prior, points, targets, np.zeros(60)).predict(at)
        return float(np.mean((mean - np.sin(9 * at[:, 0])) ** 2))

    assert error(prior) < error(default) / 2


def test_a_fit_takes_the_likeliest_of_what_it_tries() -> None:
    points = points_of(40)
    targets = np.nansum(points, axis=1)
    prior = fitted(points, targets)
    noise = np.zeros(40)
    for length, trend in product((0.2, 0.4, 0.8, 1.6), (False, True)):
        signal, nugget = targets.var(), 0.02 * targets.var()
        default = replace(prior, lengths=(length,) * 3, signal=signal, nugget=nugget, trend=trend)
        assert likelihood(prior, points, targets, noise) >= likelihood(default, points, targets, noise)


def test_a_fit_takes_the_trend_where_there_is_one_and_leaves_it_where_there_is_none() -> None:
    points = np.random.default_rng(3).random((60, 3))
    assert fitted(points, ((points - 0.5) ** 2).sum(axis=1) + points[:, 0]).trend
    assert not fitted(points, np.sin(25 * points[:, 0])).trend


def test_a_fit_knows_no_units() -> None:
    points = points_of(30)
    targets = np.nansum(points, axis=1)
    prior, scaled = fitted(points, targets), fitted(points, 1000 * targets - 7)
    assert scaled.lengths == prior.lengths
    assert scaled.mean == pytest.approx(1000 * prior.mean - 7)
    assert (scaled.signal, scaled.nugget) == pytest.approx((1e6 * prior.signal, 1e6 * prior.nugget))


def test_noise_that_is_given_is_not_taken_for_the_function() -> None:
    points, rng = np.random.default_rng(0).random((80, 1)), np.random.default_rng(1)
    targets = rng.standard_normal(80)
    smooth = fit(points, targets, np.ones(80), (0,), np.random.default_rng(0))
    mean, _ = Process(smooth, points, targets, np.ones(80)).predict(points)
    assert np.abs(mean).max() < 0.7


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e50])
def test_equal_targets_are_expected_everywhere(count: int, value: float) -> None:
    targets = np.full(count, value)
    prior = fitted(points_of(count), targets)
    mean, variance = Process(prior, points_of(count), targets, np.zeros(count)).predict(points_of(9, seed=1))
    assert mean == pytest.approx(value)
    assert ((variance >= 0) & (variance <= prior.signal * (1 + 1e-9))).all()


values = st.one_of(st.floats(-1e100, 1e100), st.floats(-3, 3), st.sampled_from([0.0, 1e-200, 1e100]))
variances = st.one_of(st.floats(0, 1e100), st.floats(0, 1), st.sampled_from([0.0, 1e-300]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(values, variances), min_size=1, max_size=12), st.booleans())
def test_whatever_is_finite_gives_finite_predictions(
    seen: list[tuple[float, float]],
    alike: bool,  # noqa: FBT001
) -> None:
    targets, noise = (np.array(column) for column in zip(*seen, strict=True))
    points = np.full((len(seen), 3), 0.25) if alike else points_of(len(seen))
    prior = fit(points, targets, noise, (0, 3, 0), np.random.default_rng(0))
    process = Process(prior, points, targets, noise)
    for mean, variance in (process.predict(points_of(9, seed=1)), process.leave_one_out()):
        assert np.isfinite(mean).all()
        assert (np.isfinite(variance) & (variance >= 0)).all()


# --- what it cannot take


@pytest.mark.parametrize(
    ("points", "targets", "noise", "message"),
    [
        (np.zeros((2, 2)), np.zeros(2), np.zeros(2), "points (2, 2), targets (2,) and noise (2,) do not fit"),
        (np.zeros((2, 3)), np.zeros(3), np.zeros(3), "do not fit together: (n, 3), (n,) and (n,) do"),
        (np.zeros((2, 3)), np.zeros(2), np.zeros(1), "do not fit together"),
        (np.zeros((2, 3)), np.array([0, np.nan]), np.zeros(2), "targets: finite numbers of at most 1e+100"),
        (np.zeros((2, 3)), np.array([0, np.inf]), np.zeros(2), "targets: finite numbers of at most 1e+100"),
        (np.zeros((2, 3)), np.zeros(2), np.array([0, -0.1]), "noise: variances from 0 to 1e+100"),
        (np.zeros((2, 3)), np.zeros(2), np.array([0, np.nan]), "noise: variances from 0 to 1e+100"),
    ],
)
def test_what_cannot_be_used_is_said(points: Array, targets: Array, noise: Array, message: str) -> None:
    for use in (
        lambda: Process(MIXED, points, targets, noise),
        lambda: fit(points, targets, noise, MIXED.choices, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=r"targets|noise") as raised:
            use()
        assert message in str(raised.value)


def test_a_fit_needs_a_point_and_a_prediction_as_many_coordinates_as_it_has() -> None:
    with pytest.raises(ValueError, match="points: a fit needs at least one"):
        fit(np.empty((0, 3)), NONE, NONE, (0, 0, 0), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"points: the shape is \(4, 2\), not \(n, 3\)"):
        Process(MIXED, np.empty((0, 3)), NONE, NONE).predict(np.zeros((4, 2)))

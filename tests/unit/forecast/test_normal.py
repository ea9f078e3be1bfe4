"""The normal distribution against the standard library's, and its scores."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard.forecast.normal import log_cdf, log_expected_improvement, normal_scores

NORMAL = NormalDist()
NUMBERS = st.floats(allow_nan=False)


@given(st.floats(-30, 8))
def test_the_logarithm_of_phi_is_that_of_the_complementary_error_function(z: float) -> None:
    assert float(log_cdf(np.array(z))) == pytest.approx(math.log(0.5 * math.erfc(-z / math.sqrt(2))), abs=3e-7)


def test_far_out_the_logarithm_is_finite_and_still_tells_points_apart() -> None:
    z = np.array([-1e9, -1e3, -50.0, -40.0, 0.0, 50.0])
    logs = log_cdf(z)
    assert np.isfinite(logs).all()
    assert (np.diff(logs) > 0).all()
    assert logs[3] == pytest.approx(-(40**2) / 2 - math.log(40 * math.sqrt(2 * math.pi)), abs=1e-3)  # its asymptote


def test_the_expected_improvement_is_the_integral_of_phi_and_keeps_its_order_far_out() -> None:
    for z in (-4.0, -1.0, 0.0, 2.0, 6.0):
        grid = np.linspace(-12, z, 200_001)
        integral = float(np.exp(log_cdf(grid)).sum() * (grid[1] - grid[0]))
        assert float(log_expected_improvement(np.array(z))) == pytest.approx(math.log(integral), abs=1e-3)
    z = np.array([-1e9, -1e3, -31.0, -30.1, -29.9, -20.0, 0.0, 20.0, 29.9, 30.1, 1e9])
    logs = log_expected_improvement(z)
    assert np.isfinite(logs).all()
    assert (np.diff(logs) > 0).all()
    assert logs[3] == pytest.approx(logs[4] - 30 * 0.2, abs=0.02)


def test_the_scores_of_ranks_are_the_quantiles_of_their_shares() -> None:
    values = np.random.default_rng(0).permutation(1000).astype(float)
    expected = [NORMAL.inv_cdf((rank + 0.5) / 1000) for rank in range(1000)]
    assert normal_scores(values)[np.argsort(values)] == pytest.approx(expected, abs=1e-4)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_scores_keep_the_order_are_finite_and_equal_for_equal_values(values: list[float]) -> None:
    scores = normal_scores(np.array(values))
    assert np.isfinite(scores).all()
    for one, score in zip(values, scores, strict=True):
        assert [other < one for other in values] == (scores < score).tolist()


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30))
def test_scores_depend_on_ranks_alone_and_mirrored_values_have_mirrored_scores(values: list[int]) -> None:
    scores = normal_scores(np.array(values, float))
    assert (normal_scores(np.array(values, float) ** 3 * 7) == scores).all()
    assert -normal_scores(-np.array(values, float)) == pytest.approx(scores, abs=1e-6)


def test_what_is_not_finite_is_the_worst_and_as_good_as_any_other() -> None:
    scores = normal_scores(np.array([math.inf, 3.0, math.inf, 1.0]))
    assert scores[0] == scores[2] == scores.max()
    assert scores == pytest.approx([NORMAL.inv_cdf(share) for share in (0.75, 0.375, 0.75, 0.125)], abs=1e-4)

"""The curve model: what becomes of a trial's place, learnt from those that have trained further."""

import numpy as np
import pytest

from halvard.forecast.curves import LARGEST, final_scores
from halvard.forecast.ridge import Ridge

RNG = np.random.default_rng(0)


def test_a_ridge_with_wide_priors_is_least_squares_and_its_errors_are_those_of_leaving_one_out() -> None:
    design = RNG.standard_normal((30, 3))
    targets = design @ [1.0, -2.0, 0.5] + 0.1 * RNG.standard_normal(30)
    wide = np.full(3, 1e4)
    model = Ridge(design, targets, wide)
    assert model.coefficients == pytest.approx(np.linalg.lstsq(design, targets)[0], abs=1e-6)
    for row in (0, 17):
        without = np.linalg.lstsq(np.delete(design, row, axis=0), np.delete(targets, row))[0]
        assert model.errors[row] == pytest.approx(targets[row] - design[row] @ without, abs=1e-5)


def test_a_ridge_without_observations_is_its_prior() -> None:
    mean, variance = Ridge(np.empty((0, 2)), np.empty(0), np.array([1.0, 3.0])).predict(np.array([[1.0, 2.0]]))
    assert mean == pytest.approx([0.0])
    assert variance == pytest.approx([1 + 36 + 0.25])


def test_nothing_seen_above_a_trial_stays_where_it_is_and_is_less_sure_the_further_below() -> None:
    scores = np.array([[-1.0, np.nan, np.nan], [0.5, 0.7, np.nan], [0.1, 0.2, 0.9], [np.nan] * 3])
    mean, variance = final_scores(np.where(np.arange(3) < [[1], [0], [0], [0]], scores, np.nan))
    assert mean[0] == pytest.approx(-1)
    mean, variance = final_scores(scores)
    assert mean[2] == pytest.approx(0.9)
    assert variance[2] == 0
    assert variance[0] > variance[1] > 0
    assert np.isnan(mean[3])


@pytest.mark.parametrize("slope", [1.0, 0.0, -0.8])
def test_it_learns_what_an_early_place_is_worth(slope: float) -> None:
    """1: places stay; 0: they say nothing; below: who begins well ends badly."""
    early = RNG.standard_normal(200)
    late = slope * early + 0.2 * RNG.standard_normal(200)
    late[100:] = np.nan
    mean, variance = final_scores(np.stack([early, late], axis=1))
    assert mean[100:] == pytest.approx(slope * early[100:], abs=0.15)
    assert np.sqrt(variance[100:]) == pytest.approx(np.full(100, 0.2), rel=0.35)


def test_it_chains_to_the_top_over_rungs_and_from_whichever_rung_a_trial_began() -> None:
    quality = RNG.standard_normal(300)
    scores = np.stack([quality + 1, quality + 0.5, quality], axis=1) + 0.05 * RNG.standard_normal((300, 3))
    scores[100:, 2], scores[200:, 1] = np.nan, np.nan
    scores[150:160, 0] = np.nan  # these began at the second rung
    mean, _ = final_scores(scores)
    assert mean == pytest.approx(quality, abs=0.4)


def test_steep_slopes_stay_within_what_a_score_can_be() -> None:
    below = np.linspace(-1, 1, 60)
    scores = np.stack([below, 4 * below, 16 * below, np.full(60, np.nan)], axis=1)
    scores[::2, 1:] = np.nan
    mean, variance = final_scores(scores)
    assert np.abs(mean).max() <= LARGEST
    assert variance.max() <= LARGEST**2


def test_of_a_trial_alone_it_expects_that_the_next_rung_changes_what_the_last_has_changed() -> None:
    """Nobody is at the top yet."""
    below = RNG.standard_normal(100)
    scores = np.stack([below, below - 0.6, np.full(100, np.nan)], axis=1)
    (still, wide), (falling, narrow) = final_scores(scores), final_scores(scores, alone=True)
    assert still == pytest.approx(below - 0.6, abs=0.05)
    assert falling == pytest.approx(below - 1.2, abs=0.1)
    assert (narrow < wide).all()

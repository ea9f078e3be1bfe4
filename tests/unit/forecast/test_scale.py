"""From scores to values, and what is said of a trial's end."""

import numpy as np
import pytest

from halvard.forecast.scale import Scale

LOSS = Scale(np.array([-2.0, 0.0, 1.0]), np.array([0.1, 0.5, 3.0]), 1)
ACCURACY = Scale(np.array([-2.0, 0.0, 1.0]), np.array([-0.9, -0.5, -0.1]), -1)


def test_between_results_a_score_has_a_value_between_theirs() -> None:
    assert LOSS.value(-1.0) == pytest.approx(0.3)
    assert ACCURACY.value(-1.0) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("mean", "deviation", "said"),
    [
        (-0.5, 0.5, "final value expected 0.4 (90 %: 0.2355 to 1.306), 0.1% to beat 0.1"),
        (-0.5, 1.0, "final value expected 0.4 (90 %: 0.1 or better to 3 or worse), 6.7% to beat 0.1"),
        (-2.0, 1.0, "final value expected 0.1 (90 %: 0.1 or better to 0.429), 50.0% to beat 0.1"),
        (-2.5, 0.2, "final value expected 0.1 or better (90 %: 0.1 or better), 99.4% to beat 0.1"),
        (1.5, 1e-6, "final value expected 3 or worse (90 %: 3 or worse), 0.0% to beat 0.1"),
        (0.0, 1e-6, "final value expected 0.5 (90 %: 0.5), 0.0% to beat 0.1"),
    ],
)
def test_beyond_all_results_no_number_is_made_up(mean: float, deviation: float, said: str) -> None:
    assert LOSS.sentence(mean, deviation, to_beat=-2.7) == said


def test_more_is_better_where_it_is() -> None:
    said = "final value expected 0.7 (90 %: 0.9 or better to 0.242), 15.9% to beat 0.9"
    assert ACCURACY.sentence(-1.0, 1.0, to_beat=-2.0) == said

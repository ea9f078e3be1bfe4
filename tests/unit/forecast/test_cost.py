"""Costs: measured where a trial has trained, predicted where not, and not compared where nobody knows."""

import numpy as np
import pytest

from halvard.forecast.cost import FEWEST, Cost, rates

BUDGETS = (1, 3, 9)
RNG = np.random.default_rng(0)


def observed(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and the seconds of their first legs: twenty times as much at one end of the first axis."""
    points = RNG.random((count, 2))
    seconds = np.full((count, 3), np.nan)
    seconds[:, 0] = 20 ** points[:, 0]
    return points, seconds


def test_the_cost_of_a_new_point_is_learnt_from_the_trials() -> None:
    points, seconds = observed(60)
    predicted = Cost(seconds, BUDGETS, (0, 0), points).predict(np.array([[0.1, 0.5], [0.9, 0.5]]))
    assert predicted == pytest.approx([20**0.1, 20**0.9], rel=0.1)


def test_the_cost_of_a_trial_is_that_of_its_latest_leg_and_a_leg_to_come_costs_as_much_a_unit() -> None:
    points, seconds = observed(20)
    seconds[3] = [5.0, 4.0, np.nan]
    rate, legs = Cost(seconds, BUDGETS, (0, 0), points).of_trials(points)
    assert rate[3] == 2
    assert legs[3].tolist() == [2.0, 4.0, 12.0]
    assert rate[0] == seconds[0, 0]


def test_a_trial_that_nobody_has_measured_costs_what_is_predicted() -> None:
    points, seconds = observed(60)
    points[7], seconds[7] = [0.5, 0.5], np.nan
    rate, legs = Cost(seconds, BUDGETS, (0, 0), points).of_trials(points)
    assert rate[7] == pytest.approx(20**0.5, rel=0.15)
    assert legs[7] == pytest.approx(rate[7] * np.array([1, 2, 6]))


def test_with_too_little_measured_all_cost_the_same_and_legs_count_by_budget() -> None:
    points, seconds = observed(FEWEST)
    seconds[0] = np.nan
    cost = Cost(seconds, BUDGETS, (0, 0), points)
    rate, legs = cost.of_trials(points)
    assert not cost.known
    assert set(rate) == {1.0} == set(cost.predict(points))
    assert legs.tolist() == [[1, 2, 6]] * FEWEST


def with_start(trials: int, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates, and seconds of legs: a Pod's start in every first leg, and in every second of the later ones."""
    rate = 20 ** RNG.random(trials)
    seconds = np.full((trials, 3), np.nan)
    seconds[:, 0] = start + rate
    seconds[::3, 1] = 2 * rate[::3] + start * (np.arange(len(rate[::3])) % 2)
    seconds[::9, 2] = 6 * rate[::9]
    return rate, seconds


def test_the_start_of_a_pod_is_not_taken_for_training() -> None:
    rate, seconds = with_start(90, start=10.0)
    assert rates(seconds, np.array([1, 2, 6])) == pytest.approx(rate)


def test_where_pods_start_at_once_rates_are_what_was_measured() -> None:
    rate, seconds = with_start(90, start=0.0)
    assert rates(seconds, np.array([1, 2, 6])) == pytest.approx(rate)


def test_a_start_is_not_guessed_from_first_legs_alone() -> None:
    _, seconds = with_start(90, start=10.0)
    seconds[:, 1:] = np.nan
    assert rates(seconds, np.array([1, 2, 6])) == pytest.approx(seconds[:, 0])

"""Costs: measured where a trial has trained, predicted where not, and not compared where nobody knows."""

import numpy as np
import pytest

from halvard.forecast.cost import FEWEST, Cost, rates, units_of_legs

BUDGETS = (1, 3, 9)
RNG = np.random.default_rng(0)


def observed(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and the seconds of their first legs: twenty times as much at one end of the first axis."""
    points = RNG.random((count, 2))
    seconds = np.full((count, 3), np.nan)
    seconds[:, 0] = 20 ** points[:, 0]
    return points, seconds


def cost_of(seconds: np.ndarray, points: np.ndarray) -> Cost:
    """Where a result came, its seconds are known."""
    return Cost(seconds, ~np.isnan(seconds), BUDGETS, (0, 0), points)


def rates_of(seconds: np.ndarray) -> np.ndarray:
    return rates(seconds, units_of_legs(~np.isnan(seconds), BUDGETS))[0]


def test_the_cost_of_a_new_point_is_learnt_from_the_trials() -> None:
    points, seconds = observed(60)
    predicted = cost_of(seconds, points).predict(np.array([[0.1, 0.5], [0.9, 0.5]]))
    assert predicted == pytest.approx([20**0.1, 20**0.9], rel=0.1)


def test_the_cost_of_a_trial_is_that_of_its_latest_leg_and_a_leg_to_come_costs_as_much_a_unit() -> None:
    points, seconds = observed(20)
    seconds[3] = [5.0, 4.0, np.nan]
    rate, legs = cost_of(seconds, points).of_trials(points)
    assert rate[3] == 2
    assert legs[3].tolist() == [2.0, 4.0, 12.0]
    assert rate[0] == seconds[0, 0]


def test_a_trial_that_nobody_has_measured_costs_what_is_predicted() -> None:
    points, seconds = observed(60)
    points[7], seconds[7] = [0.5, 0.5], np.nan
    rate, legs = cost_of(seconds, points).of_trials(points)
    assert rate[7] == pytest.approx(20**0.5, rel=0.15)
    assert legs[7] == pytest.approx(rate[7] * np.array([1, 2, 6]))


def test_with_too_little_measured_all_cost_the_same_and_legs_count_by_budget() -> None:
    points, seconds = observed(FEWEST)
    seconds[0] = np.nan
    cost = cost_of(seconds, points)
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
    assert rates_of(seconds) == pytest.approx(rate)
    assert cost_of(seconds, RNG.random((90, 2))).start == pytest.approx(10.0)


def test_where_pods_start_at_once_rates_are_what_was_measured() -> None:
    rate, seconds = with_start(90, start=0.0)
    assert rates_of(seconds) == pytest.approx(rate)


def test_a_start_is_not_guessed_from_first_legs_alone() -> None:
    _, seconds = with_start(90, start=10.0)
    seconds[:, 1:] = np.nan
    assert rates_of(seconds) == pytest.approx(seconds[:, 0])


def test_one_trial_that_nobody_has_measured_does_not_hide_the_start_of_a_pod() -> None:
    """It failed before its first result, or its first leg is not known, or its last."""
    rate, seconds = with_start(90, start=10.0)
    unknown = np.array([[np.nan, np.nan, np.nan], [np.nan, np.nan, 6.0]])
    assert rates_of(np.vstack([seconds, unknown]))[:90] == pytest.approx(rate)


def test_a_first_leg_trains_its_whole_budget_and_a_later_one_what_is_new() -> None:
    """The second trial began at the second rung, the third at the top; of the fourth the first leg was not measured."""
    known = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=bool)
    assert units_of_legs(known, BUDGETS).tolist() == [[1, 2, 6], [1, 3, 6], [1, 3, 9], [1, 2, 6], [1, 2, 6]]
    seconds = np.array([[5, 10, np.nan], [np.nan, 15, 30], [np.nan, np.nan, 45], [np.nan, 10, np.nan]])
    assert rates(seconds, units_of_legs(known[:4], BUDGETS))[0].tolist() == [5.0] * 4


def test_brackets_do_not_make_a_trial_dearer() -> None:
    points, seconds = observed(60)
    seconds[30:, 1], seconds[30:, 0] = 3 * seconds[30:, 0], np.nan
    cost, legs = cost_of(seconds, points).of_trials(points)
    assert cost == pytest.approx(20 ** points[:, 0])
    assert legs[40] == pytest.approx(cost[40] * np.array([1, 3, 6]))

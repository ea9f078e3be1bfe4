"""Kendall's tau-b, how often its interval holds the truth, and what selection hides."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard.kendall import Floats, Tau, kendall, unselected

few_levels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=5, max_size=30)


def by_definition(pairs: list[tuple[int, int]]) -> float | None:
    concordant = first = second = 0
    for (a, b), (c, d) in combinations(pairs, 2):
        concordant += np.sign(a - c) * np.sign(b - d)
        first, second = first + (a != c), second + (b != d)
    return concordant / math.sqrt(first * second) if first and second else None


@given(few_levels)
def test_it_is_the_definition_ties_included(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=float).T
    tau, expected = kendall(first, second), by_definition(pairs)
    assert (tau is None) == (expected is None)
    if tau is not None and expected is not None:
        assert tau.value == pytest.approx(expected)
        assert -1 <= tau.low <= tau.value <= tau.high <= 1


@given(few_levels)
def test_turned_around_it_is_its_negative(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=float).T
    tau, turned = kendall(first, second), kendall(first, -second)
    if tau is not None:
        assert turned is not None
        assert (turned.value, turned.low, turned.high) == pytest.approx((-tau.value, -tau.high, -tau.low))


def test_the_same_order_is_one_with_room_below() -> None:
    tau = kendall(np.arange(10.0), np.arange(10.0) ** 3)
    assert tau is not None
    assert tau.value == tau.high == 1.0
    assert tau.low < 0.999


@given(st.floats(0.01, 1.0), st.sampled_from([-1.0, 1.0]))
def test_what_is_perfect_stays_so_however_wide_the_others_are(spread: float, tau: float) -> None:
    everyone, chosen = np.arange(100.0), np.arange(100.0)[: max(2, int(100 * spread))]
    assert unselected(Tau(tau, tau, tau), everyone, chosen) == pytest.approx((tau, tau, tau))


def correlated(count: int, rho: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    first = rng.standard_normal(count)
    return first, rho * first + math.sqrt(1 - rho**2) * rng.standard_normal(count)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("count", [10, 20, 80])
@pytest.mark.parametrize("levels", [None, 2.0])
def test_its_interval_holds_the_truth_nine_times_in_ten(count: int, rho: float, levels: float | None) -> None:
    rng = np.random.default_rng(7)

    def drawn(count: int) -> Tau | None:
        first, second = correlated(count, rho, rng)
        return (
            kendall(first, second) if levels is None else kendall(np.round(first * levels), np.round(second * levels))
        )

    large = [tau.value for tau in (drawn(1000) for _ in range(10)) if tau]
    truth = sum(large) / len(large)
    held = [tau.low <= truth <= tau.high for tau in (drawn(count) for _ in range(600)) if tau]
    assert len(held) == 600
    assert 0.87 <= sum(held) / len(held) <= 0.99  # 0.9 less three standard errors; of few trials it may be wide


@pytest.mark.parametrize("rho", [-0.6, 0.3, 0.8])
@pytest.mark.parametrize("share", [2, 3, 9])
def test_what_the_best_alone_show_is_widened_to_everyone(rho: float, share: int) -> None:
    first, second = correlated(18000, rho, np.random.default_rng(3))
    best = np.random.default_rng(5).permutation(np.argsort(first)[: 18000 // share])
    everyone = kendall(first[:2000], second[:2000])
    chosen = kendall(first[best[:2000]], second[best[:2000]])
    assert everyone is not None
    assert chosen is not None
    widened = unselected(chosen, first, first[best[:2000]])
    assert abs(chosen.value) < abs(everyone.value)
    assert widened.value == pytest.approx(everyone.value, abs=0.1)
    assert widened.low < widened.value < widened.high


def test_nothing_is_widened_where_all_were_chosen() -> None:
    first, second = correlated(500, 0.5, np.random.default_rng(3))
    tau = kendall(first, second)
    assert tau is not None
    assert unselected(tau, first, first) == pytest.approx(tau, abs=0.01)


def test_nothing_is_widened_where_all_chosen_are_equal() -> None:
    tau = Tau(0.2, 0.1, 0.3)
    assert unselected(tau, np.arange(10.0), np.zeros(5)) == tau

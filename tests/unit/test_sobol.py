"""Sobol's sequence: the published points, and scrambled ones that fill the space evenly."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from halvard.samplers.sobol import BITS, DIMENSIONS, Sobol, columns, unscrambled

Points = NDArray[np.float64]


def published(count: int, dimensions: int) -> Points:
    matrices = columns(dimensions)
    points: Points = np.array([unscrambled(matrices, index) for index in range(count)]) / 2**BITS
    return points


def scrambled(count: int, dimensions: int, seed: int = 0) -> Points:
    sampler = Sobol(dimensions, seed)
    return np.array([next(sampler.draws(index, {})).point for index in range(count)])


def discrepancy(points: Points) -> float:
    """The centred L2 discrepancy (Hickernell 1998): 0 would be perfectly even."""
    count, dimensions = points.shape
    away = np.abs(points - 0.5)
    single = (1 + away / 2 - away**2 / 2).prod(axis=1).sum()
    between = np.abs(points[:, None] - points[None])
    pairs = (1 + away[:, None] / 2 + away[None] / 2 - between / 2).prod(axis=2).sum()
    squared: float = (13 / 12) ** dimensions - 2 / count * single + pairs / count**2
    return math.sqrt(squared)


def test_the_first_points_are_the_published_ones() -> None:
    assert published(8, 5).tolist() == [
        [0, 0, 0, 0, 0],
        [0.5, 0.5, 0.5, 0.5, 0.5],
        [0.75, 0.25, 0.25, 0.25, 0.75],
        [0.25, 0.75, 0.75, 0.75, 0.25],
        [0.375, 0.375, 0.625, 0.875, 0.375],
        [0.875, 0.875, 0.125, 0.375, 0.875],
        [0.625, 0.125, 0.875, 0.625, 0.625],
        [0.125, 0.625, 0.375, 0.125, 0.125],
    ]


def test_the_last_dimensions_are_the_published_ones_too() -> None:
    # as scipy 1.17 has them: point 1000 of the last four dimensions
    assert (published(1001, DIMENSIONS)[1000, -4:] * 1024).tolist() == [457, 617, 265, 457]


@pytest.mark.parametrize("points", [published(256, DIMENSIONS), scrambled(256, DIMENSIONS)])
def test_every_coordinate_has_one_point_in_each_of_2_to_the_k_intervals(points: Points) -> None:
    for column in points.T:
        assert sorted(np.floor(column * 256)) == list(range(256))


def test_the_first_two_scrambled_coordinates_are_a_net() -> None:
    points = scrambled(256, 2, seed=3)
    for k in range(9):
        cells = {(int(x * 2**k), int(y * 2 ** (8 - k))) for x, y in points}
        assert len(cells) == 256


@pytest.mark.parametrize("dimensions", [2, 5, 12])
def test_scrambled_points_are_much_more_even_than_random_ones(dimensions: int) -> None:
    even = np.mean([discrepancy(scrambled(256, dimensions, seed)) for seed in range(5)])
    random = np.mean([discrepancy(np.random.default_rng(seed).random((256, dimensions))) for seed in range(5)])
    assert even < 0.6 * random


def test_scrambled_points_are_uniform_over_the_seeds() -> None:
    first = np.array([scrambled(1, 3, seed)[0] for seed in range(2000)])
    assert first.mean(axis=0) == pytest.approx([0.5] * 3, abs=0.03)
    assert np.corrcoef(first.T) == pytest.approx(np.eye(3), abs=0.1)


def test_a_seed_scrambles_always_in_the_same_way_and_another_one_in_another() -> None:
    assert scrambled(20, 3, seed=5).tolist() == scrambled(20, 3, seed=5).tolist()
    assert set(scrambled(20, 3, seed=5).ravel()).isdisjoint(scrambled(20, 3, seed=-5).ravel())


def test_a_point_far_out_costs_no_walk_to_it() -> None:
    first = next(Sobol(3, 0).draws(10**9, {}))
    assert all(0 < coordinate < 1 for coordinate in first.point)


def test_more_dimensions_than_there_are_numbers_for_are_refused() -> None:
    with pytest.raises(ValueError, match="sobol has 64 dimensions; the study has 65 parameters"):
        Sobol(65, 0)

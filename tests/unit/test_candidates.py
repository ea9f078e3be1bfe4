"""The points among which a model chooses."""

import math

import numpy as np
import pytest

from halvard.samplers.candidates import Candidates
from halvard.space import decode
from unit.searches import MIXED, SQUARE, study_spec


def test_candidates_lie_in_the_cube_and_many_near_the_best() -> None:
    best = np.array([[0.0, 0.3, 0.6, 1.0]])
    points = Candidates(study_spec(SQUARE).parameters).draw(best, np.random.default_rng(0))
    assert ((points >= 0) & (points <= 1)).all()
    distances = np.linalg.norm(points - best, axis=1)
    assert (distances < 0.6).sum() > 190
    assert distances.min() > 0


def test_no_number_stays_quite_the_same_and_about_half_of_the_choices_do() -> None:
    axes = [{"name": "x", "float": {"min": 0, "max": 1}}, {"name": "kind", "choice": list(range(50))}]
    points = Candidates(study_spec(axes).parameters).draw(np.array([[0.4, 0.51]]), np.random.default_rng(0))
    assert (points[:, 0] != 0.4).all()
    assert 60 < (points[:, 1] == 0.51).sum() < 140


def test_what_the_best_does_not_have_is_drawn() -> None:
    best = np.array([[0.5, 0.9, math.nan, 0.5, 0.5]])
    points = Candidates(study_spec(MIXED).parameters).draw(best, np.random.default_rng(0))
    assert len(np.unique(points[:, 2])) == len(points)


def test_a_candidate_is_taken_for_what_it_means() -> None:
    parameters = study_spec(MIXED).parameters
    candidates = Candidates(parameters)
    points = candidates.draw(np.full((1, 5), 0.5), np.random.default_rng(0))
    meant = candidates.encoded(points)
    for point, middle in zip(points, meant, strict=True):
        values = decode(parameters, point)
        assert np.isnan(middle).tolist() == [parameter.name not in values for parameter in parameters]
    assert len(np.unique(meant[:, 3])) == 10
    assert candidates.encoded(meant) == pytest.approx(meant, nan_ok=True)

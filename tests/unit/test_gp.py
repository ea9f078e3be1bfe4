"""The Gaussian process: its acquisition functions, what it learns from, and how many pending trials it stands."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard.samplers.evidence import Evidence
from halvard.samplers.gp import confidence_bound, expected_improvement, observed, probability_of_improvement
from halvard.study import Value
from halvard.tried import Tried
from unit.searches import MIXED, ask, best, make_sampler, network, results, study_spec

DRAWS = np.random.default_rng(0).standard_normal(400_000)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.5), (-0.4, 2.0)])
def test_the_expected_improvement_is_that_of_a_normal_score(mean: float, deviation: float) -> None:
    found = expected_improvement(np.array([mean]), np.array([deviation]), 0.2)
    assert found == pytest.approx([np.maximum(0.2 - (mean + deviation * DRAWS), 0).mean()], abs=0.01)


def test_the_probability_of_improvement_orders_points_as_draws_do() -> None:
    means, deviations = np.array([0.0, 0.5, -0.5, 2.0]), np.array([1.0, 0.2, 0.1, 3.0])
    drawn = [(mean + deviation * DRAWS < -0.7).mean() for mean, deviation in zip(means, deviations, strict=True)]
    found = probability_of_improvement(means, deviations, -0.6)
    assert np.argsort(found).tolist() == np.argsort(drawn).tolist()


def test_the_confidence_bound_trades_two_standard_deviations_for_the_mean() -> None:
    assert confidence_bound(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.5]), 0.0).tolist() == [1.0, -1.0, 1.0]


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e3)), min_size=1, max_size=8),
    st.floats(-1e3, 1e3),
    st.sampled_from([expected_improvement, confidence_bound, probability_of_improvement]),
)
def test_an_acquisition_is_a_number_and_prefers_the_lower_of_two_means(
    points: list[tuple[float, float]], incumbent: float, acquisition: object
) -> None:
    assert callable(acquisition)
    mean, deviation = (np.array(column) for column in zip(*points, strict=True))
    worth = acquisition(mean, deviation, incumbent)
    lower = acquisition(mean - 1, deviation, incumbent)
    assert np.isfinite(worth).all()
    assert (lower >= worth).all()


ACQUISITIONS = ["ei", "ucb", "pi"]


def modelled(acquisition: str, tried: Mapping[int, Tried]) -> Mapping[str, Value]:
    """The first proposal from 1000 on that is not random."""
    sampler = make_sampler(study_spec(sampler="gp", acquisition=acquisition))
    proposals = (ask(sampler, index, tried) for index in range(1000, 1100))
    return next(proposal.parameters for proposal in proposals if proposal.why == WHY)


WHY = "new trial: gp on 15 results at rung 1"


@pytest.mark.parametrize("acquisition", ["ucb", "pi"])
def test_the_other_acquisitions_find_a_clearly_better_trial_than_random_too(acquisition: str) -> None:
    gp, random = (
        [best(study_spec(MIXED, sampler, seed, **options), network, trials=50) for seed in range(3)]
        for sampler, options in (("gp", {"acquisition": acquisition}), ("random", {}))
    )
    assert np.mean(gp) < np.mean(random) - 0.3


def test_the_acquisitions_are_not_one_and_the_same() -> None:
    tried = results(15)
    samplers = [make_sampler(study_spec(sampler="gp", acquisition=acquisition)) for acquisition in ACQUISITIONS]
    found = [[ask(sampler, index, tried).parameters for index in range(1000, 1008)] for sampler in samplers]
    assert found[0] != found[1] != found[2] != found[0]


# --- what it learns from


def evidence(values: list[float], hopeless: int = 0) -> Evidence:
    trials: list[Mapping[str, Value]] = [{"x": float(place)} for place in range(len(values) + hopeless)]
    return Evidence(1, ranked=trials[: len(values)], values=values, hopeless=trials[len(values) :], pending=[])


def test_results_count_by_their_rank() -> None:
    _, scores = observed(evidence([-1e300, 0.0, 0.1, 1e300]))
    assert scores == pytest.approx([-1.150, -0.319, 0.319, 1.150], abs=1e-3)


def test_equal_results_have_equal_scores() -> None:
    _, scores = observed(evidence([0.1, 0.5, 0.5, 0.5, 0.9]))
    assert scores[1:4] == pytest.approx(0, abs=1e-6)
    assert scores[0] < -1 < 1 < scores[4]


def test_hopeless_trials_have_the_worst_score_and_do_not_drown_the_results() -> None:
    trials, scores = observed(evidence([0.1, 0.2, 0.3, 0.4], hopeless=500))
    assert len(trials) == len(scores) == 8
    assert scores[:4] == pytest.approx([-1.534, -0.887, -0.489, -0.157], abs=1e-3)
    assert scores[4:] == pytest.approx(0.674, abs=1e-3)


def test_of_many_results_it_keeps_the_best_and_a_spread_of_the_others() -> None:
    found = evidence([float(value) for value in range(10_000)], hopeless=3000)
    trials, scores = observed(found)
    assert len(trials) == len(scores) == 200
    assert trials[:100] == found.ranked[:100]
    others = [float(trial["x"]) for trial in trials[100:160]]
    assert np.diff(others) == pytest.approx(165)
    assert all(trial in found.hopeless for trial in trials[160:])
    assert (np.diff(scores) >= 0).all()


# --- many at once


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_what_runs_already_is_not_what_to_try_next(acquisition: str) -> None:
    tried = results(15)
    first = modelled(acquisition, tried)
    running = {40 + place: Tried(first, {}, failed=False) for place in range(3)}
    assert modelled(acquisition, tried | running) != first


@pytest.mark.parametrize("acquisition", ["ei", "pi"])
def test_many_at_once_keep_further_from_each_other_than_if_they_did_not_know(acquisition: str) -> None:
    sampler, tried = make_sampler(study_spec(sampler="gp", acquisition=acquisition)), results(15)
    unaware = [
        proposal.parameters for index in range(1000, 1040) if (proposal := ask(sampler, index, tried)).why == WHY
    ]
    for index in range(1000, 1040):
        tried[index] = Tried(ask(sampler, index, tried).parameters, {}, failed=False)
    aware = [tried[index].parameters for index in range(1000, 1040) if ask(sampler, index, tried).why == WHY]
    assert len(aware) == len(unaware) > 20
    assert apart(aware) > 1.3 * apart(unaware)


def apart(trials: list[Mapping[str, Value]]) -> float:
    """How far (in the geometric mean) each is from the nearest other one."""
    points = np.array([[float(value) for value in trial.values()] for trial in trials])
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 10 * np.eye(len(points))
    return float(np.exp(np.log(distances.min(axis=1)).mean()))

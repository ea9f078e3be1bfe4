"""TPE: what it needs, and the estimator that it shares with BOHB."""

import numpy as np
import pytest

from halvard.samplers.parzen import Parzen
from halvard.tried import Tried
from unit.searches import SQUARE, ask, bowl, make_sampler, results, study_spec


def test_more_parameters_need_more_results() -> None:
    axes = [{"name": f"x{place}", "float": {"min": 0, "max": 1}} for place in range(20)]
    assert ask(make_sampler(study_spec(axes)), 0, {}).why == "new trial: random, 0 of 23 results"


def test_what_runs_already_is_not_asked_for_again() -> None:
    tried = results(40)
    made = make_sampler(study_spec())
    alone = [ask(made, index, tried).parameters for index in range(100, 140)]
    crowd = {1000 + place: Tried({f"x{i}": 0.3 for i in range(4)}, {}, failed=False) for place in range(60)}
    beside = [ask(made, index, tried | crowd).parameters for index in range(100, 140)]
    assert np.mean([bowl(each) for each in beside]) > np.mean([bowl(each) for each in alone]) + 0.03


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("count", [1, 3, 30])
def test_the_density_of_the_estimator_is_that_of_its_samples(count: int, prior: bool) -> None:  # noqa: FBT001
    spec = study_spec([SQUARE[0], {"name": "kind", "choice": ["a", "b", "c"]}], "random")
    trials = [ask(make_sampler(spec), index, {}).parameters for index in range(count)]
    estimate = Parzen(spec.parameters, trials, prior=prior, narrowest=0.01)
    samples = estimate.sample(20_000, np.random.default_rng(0))
    cells = np.array([[(i + 0.5) / 1000, (k + 0.5) / 3] for i in range(1000) for k in range(3)])
    density = estimate.density(cells).reshape(10, 100, 3).mean(axis=1) / 30
    shares, _, _ = np.histogram2d(samples[:, 0], samples[:, 1], bins=[10, 3], range=[[0, 1], [0, 1]])
    assert density.sum() == pytest.approx(1, abs=1e-6)
    assert shares / 20_000 == pytest.approx(density, abs=0.012)


def test_an_estimate_that_is_sampled_wider_has_its_samples_further_away() -> None:
    spec = study_spec(SQUARE[:1], "random")
    estimate = Parzen(spec.parameters, [{"x0": 0.5}, {"x0": 0.52}], prior=False, narrowest=1e-3)
    near, far = (estimate.sample(4000, np.random.default_rng(0), wider).std() for wider in (1.0, 3.0))
    assert far == pytest.approx(3 * near, rel=0.4)
    assert far > 2 * near

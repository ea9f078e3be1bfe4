"""TPE: better than random where there is something to learn, and at random where there is not."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.samplers import Proposal, Sampler, make_sampler
from halvard.samplers.parzen import Parzen
from halvard.study import StudySpec, Value
from halvard.tried import Tried

Objective = Callable[[Mapping[str, Value]], float]

SQUARE: list[dict[str, Any]] = [{"name": f"x{place}", "float": {"min": 0, "max": 1}} for place in range(4)]
MIXED: list[dict[str, Any]] = [
    {"name": "lr", "float": {"min": 1e-5, "max": 1, "scale": "log"}},
    {"name": "optimizer", "choice": ["sgd", "adamw", "lion", "lamb"]},
    {"name": "momentum", "float": {"min": 0, "max": 1}, "when": {"optimizer": ["sgd"]}},
    {"name": "layers", "int": {"min": 1, "max": 10}},
    {"name": "dropout", "float": {"min": 0.0, "max": 0.5, "step": 0.1}},
]


def study_spec(
    axes: list[dict[str, Any]] = SQUARE, sampler: str = "tpe", seed: int = 0, goal: str = "minimize"
) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": goal},
            "parameters": axes,
            "sampler": {sampler: {}},
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 10},
            "seed": seed,
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def bowl(parameters: Mapping[str, Value]) -> float:
    return sum((float(value) - 0.3) ** 2 for value in parameters.values())


def steep(parameters: Mapping[str, Value]) -> float:
    """A bowl that diverges in a quarter of the space."""
    return math.nan if float(parameters["x0"]) > 0.75 else bowl(parameters)


def network(parameters: Mapping[str, Value]) -> float:
    """Best with sgd, if its momentum is right."""
    loss = (math.log10(float(parameters["lr"])) + 2.5) ** 2 + (float(parameters["layers"]) - 6) ** 2 / 9
    loss += float(parameters["dropout"])
    if parameters["optimizer"] == "sgd":
        return loss + 4 * (float(parameters["momentum"]) - 0.9) ** 2
    return loss + {"adamw": 0.3, "lion": 0.6, "lamb": 1.0}[str(parameters["optimizer"])]


def known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def ask(sampler: Sampler, index: int, tried: Mapping[int, Tried]) -> Proposal:
    proposal = sampler.propose(index, tried)
    assert proposal is not None
    return proposal


def search(spec: StudySpec, objective: Objective, trials: int, pending: int, sign: int = 1) -> list[Proposal]:
    """A study with so many trials at once, whose results come in the order in which they began."""
    sampler, tried, running = make_sampler(spec), dict[int, Tried](), deque[int]()
    proposals = []
    for index in range(trials):
        if len(running) == pending:
            done = running.popleft()
            parameters = tried[done].parameters
            tried[done] = Tried(parameters, {1: known(sign * objective(parameters))}, failed=False)
        proposals.append(ask(sampler, index, tried))
        tried[index] = Tried(proposals[-1].parameters, {}, failed=False)
        running.append(index)
    return proposals


def best(spec: StudySpec, objective: Objective, pending: int = 16) -> float:
    """The logarithm of the best value of 100 trials."""
    values = (objective(proposal.parameters) for proposal in search(spec, objective, 100, pending))
    return math.log10(min(value for value in values if math.isfinite(value)))


def results(count: int, budget: int = 1, seed: int = 0) -> dict[int, Tried]:
    """Trials drawn at random, with their values of the bowl as results."""
    sampler = make_sampler(study_spec(sampler="random", seed=seed))
    drawn = [ask(sampler, index, {}).parameters for index in range(count)]
    return {index: Tried(each, {budget: bowl(each)}, failed=False) for index, each in enumerate(drawn)}


def why(tried: Mapping[int, Tried]) -> set[str]:
    """What is said about the next twenty trials if nothing else becomes known."""
    sampler = make_sampler(study_spec())
    return {ask(sampler, index, tried).why for index in range(10_000, 10_020)}


RANDOM = "new trial: random, as 25% are"


# --- it learns


@pytest.mark.parametrize(
    ("axes", "objective", "pending"),
    [(SQUARE, bowl, 1), (SQUARE, bowl, 16), (SQUARE, steep, 16), (MIXED, network, 16)],
    ids=["one at once", "sixteen at once", "a quarter diverges", "choices and conditions"],
)
def test_tpe_finds_a_clearly_better_trial_than_random(
    axes: list[dict[str, Any]], objective: Objective, pending: int
) -> None:
    tpe, random = (
        np.mean([best(study_spec(axes, sampler, seed), objective, pending) for seed in range(12)])
        for sampler in ("tpe", "random")
    )
    assert tpe < random - 0.2


def test_maximising_is_minimising_mirrored() -> None:
    down = search(study_spec(MIXED), network, 60, pending=16)
    up = search(study_spec(MIXED, goal="maximize"), network, 60, pending=16, sign=-1)
    assert down == up


def test_what_runs_already_is_not_asked_for_again() -> None:
    tried = results(40)
    sampler = make_sampler(study_spec())
    alone = [ask(sampler, index, tried).parameters for index in range(100, 140)]
    crowd = {1000 + place: Tried({f"x{i}": 0.3 for i in range(4)}, {}, failed=False) for place in range(60)}
    beside = [ask(sampler, index, tried | crowd).parameters for index in range(100, 140)]
    assert np.mean([bowl(each) for each in beside]) > np.mean([bowl(each) for each in alone]) + 0.03


# --- what it goes by


def test_tpe_is_random_until_there_are_enough_results() -> None:
    assert why({}) == {"new trial: random, 0 of 10 results"}
    assert why(results(9)) == {"new trial: random, 9 of 10 results"}
    assert why(results(10)) == {RANDOM, "new trial: tpe on 10 results at rung 1"}


def test_before_that_its_trials_are_those_of_random_search() -> None:
    tpe, random = make_sampler(study_spec()), make_sampler(study_spec(sampler="random"))
    assert [ask(tpe, i, {}).parameters for i in range(9)] == [ask(random, i, {}).parameters for i in range(9)]


def test_more_parameters_need_more_results() -> None:
    axes = [{"name": f"x{place}", "float": {"min": 0, "max": 1}} for place in range(20)]
    assert ask(make_sampler(study_spec(axes)), 0, {}).why == "new trial: random, 0 of 23 results"


def test_it_learns_from_the_highest_rung_with_enough_results() -> None:
    tried = results(40)
    promoted = {i: Tried(tried[i].parameters, {1: 0.1, 3: 0.1 * i}, failed=False) for i in range(12)}
    assert why(tried | promoted) == {RANDOM, "new trial: tpe on 12 results at rung 3"}
    assert why(tried | {i: promoted[i] for i in range(9)}) == {RANDOM, "new trial: tpe on 40 results at rung 1"}


def test_results_that_are_not_finite_or_whose_trial_failed_are_not_among_the_results() -> None:
    tried = results(12)
    tried[0] = Tried(tried[0].parameters, {1: None}, failed=False)
    tried[1] = Tried(tried[1].parameters, {1: 0.0}, failed=True)
    tried[2] = Tried(tried[2].parameters, {}, failed=False)
    assert why(tried) == {"new trial: random, 9 of 10 results"}


def test_failed_trials_are_worse_than_all_others() -> None:
    tried = results(60)
    failures = {
        index: Tried(each.parameters, each.results, bowl(each.parameters) < 0.2) for index, each in tried.items()
    }
    assert any(each.failed for each in failures.values())
    sampler = make_sampler(study_spec())
    near = np.mean([bowl(ask(sampler, index, tried).parameters) for index in range(100, 160)])
    away = np.mean([bowl(ask(sampler, index, failures).parameters) for index in range(100, 160)])
    assert away > near + 0.05


# --- where there is nothing to learn


def test_it_is_random_where_all_results_are_equal() -> None:
    tried = {index: Tried(each.parameters, {1: 0.5}, failed=False) for index, each in results(30).items()}
    assert why(tried) == {"new trial: random, all 30 results at rung 1 are equal"}


def test_it_is_random_where_no_result_is_finite() -> None:
    tried = {index: Tried(each.parameters, {1: None}, failed=False) for index, each in results(30).items()}
    assert why(tried) == {"new trial: random, 0 of 10 results"}


def test_one_point_tried_again_and_again_is_no_obstacle() -> None:
    point = {f"x{place}": 1.0 for place in range(4)}
    tried = {index: Tried(point, {1: float(index)}, failed=False) for index in range(30)}
    sampler = make_sampler(study_spec())
    assert all(0 <= float(u) <= 1 for index in range(50, 80) for u in ask(sampler, index, tried).parameters.values())


def test_a_space_of_one_value_is_over_after_one_trial() -> None:
    sampler = make_sampler(study_spec([{"name": "x", "choice": ["only"]}]))
    assert ask(sampler, 0, {}).parameters == {"x": "only"}
    assert sampler.propose(1, {0: Tried({"x": "only"}, {1: 0.1}, failed=False)}) is None


# --- the same from the same


outcomes = st.one_of(st.none(), st.floats(-1e300, 1e300), st.sampled_from([0.0, 0.5]))
histories = st.lists(st.tuples(outcomes, outcomes, st.sampled_from(["new", "low", "both"]), st.booleans()), max_size=60)


@settings(max_examples=60, deadline=None)
@given(histories, st.randoms(use_true_random=False), st.integers(0, 5))
def test_a_proposal_depends_on_what_is_known_and_not_on_the_order_it_became_known(
    history: list[tuple[float | None, float | None, str, bool]], shuffle: Any, seed: int
) -> None:
    random = make_sampler(study_spec(MIXED, "random", seed))
    tried = {}
    for index, (low, high, state, failed) in enumerate(history):
        budgets = {"new": dict[int, float | None](), "low": {1: low}, "both": {1: low, 3: high}}[state]
        tried[index] = Tried(ask(random, index, {}).parameters, budgets, failed and index % 5 == 0)
    items = list(tried.items())
    shuffle.shuffle(items)
    proposals = [ask(make_sampler(study_spec(MIXED, seed=seed)), 60 + i, tried) for i in range(3)]
    assert proposals == [ask(make_sampler(study_spec(MIXED, seed=seed)), 60 + i, dict(items)) for i in range(3)]


def test_thousands_of_results_and_pending_trials_are_no_obstacle() -> None:
    pending = {index + 5000: each for index, each in results(1000, seed=1).items()}
    tried = results(3000) | {index: Tried(each.parameters, {}, failed=False) for index, each in pending.items()}
    assert why(tried) == {RANDOM, "new trial: tpe on 3000 results at rung 1"}


# --- the estimator


@pytest.mark.parametrize("count", [1, 3, 30])
def test_the_density_of_the_estimator_is_that_of_its_samples(count: int) -> None:
    spec = study_spec([SQUARE[0], {"name": "kind", "choice": ["a", "b", "c"]}], "random")
    estimate = Parzen(spec.parameters, [ask(make_sampler(spec), index, {}).parameters for index in range(count)])
    samples = estimate.sample(20_000, np.random.default_rng(0))
    cells = np.array([[(i + 0.5) / 100, (k + 0.5) / 3] for i in range(100) for k in range(3)])
    density = estimate.density(cells).reshape(10, 10, 3).mean(axis=1) / 30
    shares, _, _ = np.histogram2d(samples[:, 0], samples[:, 1], bins=[10, 3], range=[[0, 1], [0, 1]])
    assert density.sum() == pytest.approx(1, abs=1e-6)
    assert shares / 20_000 == pytest.approx(density, abs=0.01)

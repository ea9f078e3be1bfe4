"""What holds of every sampler with a model: it learns where there is something to learn, else it is at random."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.tried import Tried
from unit.searches import (
    MIXED,
    SQUARE,
    Objective,
    ask,
    best,
    bowl,
    make_sampler,
    network,
    results,
    search,
    steep,
    study_spec,
    why,
)

NEEDED = {"tpe": 10, "bohb": 7, "gp": 10}  # results, with four parameters
RANDOM = {"tpe": "as 25% are", "bohb": "as 33% are", "gp": "as 25% are"}

SEARCH = {"tpe": (100, 10), "gp": (50, 4)}  # so many trials with so many seeds show it; of bohb see its own tests

every = pytest.mark.parametrize("sampler", NEEDED)


def at_random(why: str) -> set[str]:
    return {f"new trial: random, {why}"}


def learnt(sampler: str, count: int, rung: int) -> set[str]:
    return {*at_random(RANDOM[sampler]), f"new trial: {sampler} on {count} results at rung {rung}"}


# --- it learns


@pytest.mark.parametrize("sampler", SEARCH)
@pytest.mark.parametrize(
    ("axes", "objective", "pending"),
    [(SQUARE, bowl, 1), (SQUARE, steep, 16), (MIXED, network, 16)],
    ids=["one at once", "sixteen at once, a quarter diverges", "choices and conditions"],
)
def test_it_finds_a_clearly_better_trial_than_random(
    sampler: str, axes: list[dict[str, Any]], objective: Objective, pending: int
) -> None:
    trials, seeds = SEARCH[sampler]
    found, random = (
        np.array([best(study_spec(axes, each, seed), objective, pending, trials) for seed in range(seeds)])
        for each in (sampler, "random")
    )
    gains = random - found
    assert gains.mean() > max(0.2, 2 * gains.std() / np.sqrt(seeds))


@every
def test_maximising_is_minimising_mirrored(sampler: str) -> None:
    down = search(study_spec(MIXED, sampler), network, 40, pending=16)
    up = search(study_spec(MIXED, sampler, goal="maximize"), network, 40, pending=16, sign=-1)
    assert down == up


# --- what it goes by


@every
def test_it_is_random_until_there_are_enough_results(sampler: str) -> None:
    needed = NEEDED[sampler]
    assert why({}, sampler) == at_random(f"0 of {needed} results")
    assert why(results(needed - 1), sampler) == at_random(f"{needed - 1} of {needed} results")
    assert why(results(needed), sampler) == learnt(sampler, needed, 1)


@every
def test_before_that_its_trials_are_those_of_random_search(sampler: str) -> None:
    made, random = make_sampler(study_spec(sampler=sampler)), make_sampler(study_spec(sampler="random"))
    assert [ask(made, i, {}).parameters for i in range(9)] == [ask(random, i, {}).parameters for i in range(9)]


@every
def test_it_learns_from_the_highest_rung_with_enough_results(sampler: str) -> None:
    tried = results(40)
    promoted = {i: Tried(tried[i].parameters, {1: 0.1, 3: 0.1 * i}, failed=False) for i in range(NEEDED[sampler])}
    assert why(tried | promoted, sampler) == learnt(sampler, len(promoted), 3)
    del promoted[0]
    assert why(tried | promoted, sampler) == learnt(sampler, 40, 1)


@every
def test_results_that_are_not_finite_or_whose_trial_failed_are_not_among_the_results(sampler: str) -> None:
    tried = results(NEEDED[sampler] + 2)
    tried[0] = Tried(tried[0].parameters, {1: None}, failed=False)
    tried[1] = Tried(tried[1].parameters, {1: 0.0}, failed=True)
    tried[2] = Tried(tried[2].parameters, {}, failed=False)
    assert why(tried, sampler) == at_random(f"{NEEDED[sampler] - 1} of {NEEDED[sampler]} results")


@every
def test_failed_trials_are_worse_than_all_others(sampler: str) -> None:
    tried = results(60)
    failures = {
        index: Tried(each.parameters, each.results, bowl(each.parameters) < 0.2) for index, each in tried.items()
    }
    assert any(each.failed for each in failures.values())
    made = make_sampler(study_spec(sampler=sampler))
    near = np.mean([bowl(ask(made, index, tried).parameters) for index in range(100, 140)])
    away = np.mean([bowl(ask(made, index, failures).parameters) for index in range(100, 140)])
    assert away > near + 0.05


# --- where there is nothing to learn


@every
def test_it_is_random_where_all_results_are_equal(sampler: str) -> None:
    tried = {index: Tried(each.parameters, {1: 0.5}, failed=False) for index, each in results(30).items()}
    assert why(tried, sampler) == at_random("all 30 results at rung 1 are equal")


@every
def test_it_is_random_where_no_result_is_finite(sampler: str) -> None:
    tried = {index: Tried(each.parameters, {1: None}, failed=False) for index, each in results(30).items()}
    assert why(tried, sampler) == at_random(f"0 of {NEEDED[sampler]} results")


@every
def test_one_point_tried_again_and_again_is_no_obstacle(sampler: str) -> None:
    point = {f"x{place}": 1.0 for place in range(4)}
    tried = {index: Tried(point, {1: float(index)}, failed=False) for index in range(30)}
    made = make_sampler(study_spec(sampler=sampler))
    assert all(0 <= float(u) <= 1 for index in range(50, 80) for u in ask(made, index, tried).parameters.values())


@every
def test_a_space_of_one_value_is_over_after_one_trial(sampler: str) -> None:
    made = make_sampler(study_spec([{"name": "x", "choice": ["only"]}], sampler))
    assert ask(made, 0, {}).parameters == {"x": "only"}
    assert made.propose(1, {0: Tried({"x": "only"}, {1: 0.1}, failed=False)}) is None


# --- the same from the same


outcomes = st.one_of(st.none(), st.floats(-1e300, 1e300), st.sampled_from([0.0, 0.5]))
histories = st.lists(st.tuples(outcomes, outcomes, st.sampled_from(["new", "low", "both"]), st.booleans()), max_size=60)


@every
@settings(max_examples=20, deadline=None)
@given(history=histories, shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 5))
def test_a_proposal_depends_on_what_is_known_and_not_on_the_order_it_became_known(
    sampler: str, history: list[tuple[float | None, float | None, str, bool]], shuffle: Any, seed: int
) -> None:
    random = make_sampler(study_spec(MIXED, "random", seed))
    tried = {}
    for index, (low, high, state, failed) in enumerate(history):
        budgets = {"new": dict[int, float | None](), "low": {1: low}, "both": {1: low, 3: high}}[state]
        tried[index] = Tried(ask(random, index, {}).parameters, budgets, failed and index % 5 == 0)
    items = list(tried.items())
    shuffle.shuffle(items)
    spec = study_spec(MIXED, sampler, seed)
    proposals = [ask(make_sampler(spec), 60 + i, tried) for i in range(3)]
    assert proposals == [ask(make_sampler(spec), 60 + i, dict(items)) for i in range(3)]


@every
def test_thousands_of_results_and_pending_trials_are_no_obstacle(sampler: str) -> None:
    pending = {index + 5000: each for index, each in results(1000, seed=1).items()}
    tried = results(3000) | {index: Tried(each.parameters, {}, failed=False) for index, each in pending.items()}
    assert why(tried, sampler) == learnt(sampler, 3000, 1)

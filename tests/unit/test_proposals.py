"""What every sampler does alike: the user's points first, nothing tried twice, and an end where there is no more."""

import math
from typing import Any

import pytest

from halvard.samplers import Proposal
from halvard.study import StudySpec, Value
from halvard.tried import Tried
from unit.searches import make_sampler

FINITE: list[dict[str, Any]] = [
    {"name": "optimizer", "choice": ["sgd", "adamw"]},
    {"name": "momentum", "float": {"min": 0.5, "max": 0.9, "step": 0.2}, "when": {"optimizer": ["sgd"]}},
    {"name": "warmup", "choice": [True, 1]},
]
COMBINATIONS = 8
CONTINUOUS = ["random", "sobol", "tpe", "bohb", "gp", "auto"]
SAMPLERS = [*CONTINUOUS, "grid"]


def study_spec(axes: list[dict[str, Any]], sampler: str, points: list[dict[str, Value]] | None = None) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": axes,
            "sampler": {sampler: {}},
            "initialPoints": points or [],
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 10},
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def search(spec: StudySpec, most: int) -> list[Proposal]:
    """The proposals of a study, each told a result, until there are no more or so many."""
    sampler, tried, proposals = make_sampler(spec), dict[int, Tried](), list[Proposal]()
    for index in range(most):
        proposal = sampler.propose(index, tried)
        if proposal is None:
            break
        proposals.append(proposal)
        tried[index] = Tried(proposal.parameters, {1: math.sin(index)}, failed=False)
    return proposals


def typed(proposals: list[Proposal]) -> set[str]:
    return {repr(sorted(proposal.parameters.items())) for proposal in proposals}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_is_tried_once_from_end_to_end(sampler: str) -> None:
    proposals = search(study_spec(FINITE, sampler), 20)
    assert len(proposals) == len(typed(proposals)) == COMBINATIONS


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_proposed_when_everything_was_tried_in_whatever_order_it_is_known(sampler: str) -> None:
    spec = study_spec(FINITE, sampler)
    tried = {index: Tried(p.parameters, {}, failed=True) for index, p in enumerate(search(spec, 20))}
    backwards = dict(reversed(tried.items()))
    assert [make_sampler(spec).propose(index, backwards) for index in (8, 9, 1000)] == [None, None, None]


@pytest.mark.parametrize("sampler", CONTINUOUS)
def test_a_large_finite_space_has_no_trial_twice(sampler: str) -> None:
    axes = [{"name": f"n{place}", "int": {"min": 1, "max": 6}} for place in range(3)]
    proposals = search(study_spec(axes, sampler), 170)
    assert len(typed(proposals)) == 170


@pytest.mark.parametrize("sampler", CONTINUOUS)
def test_a_space_with_a_real_number_somewhere_is_never_exhausted(sampler: str) -> None:
    axes: list[dict[str, Any]] = [
        {"name": "method", "choice": list(range(80))},
        {"name": "rate", "float": {"min": 0, "max": 1}, "when": {"method": [7]}},
    ]
    proposals = search(study_spec(axes, sampler), 120)
    assert len(typed(proposals)) == 120
    if sampler != "gp":  # which may find that one corner more promising than all others together
        assert typed(proposals) >= {repr([("method", n)]) for n in range(80) if n != 7}


def test_the_last_few_combinations_are_found_wherever_they_are_and_none_is_always_the_first() -> None:
    left = {90, 300, 500, 700, 999}
    spec = study_spec([{"name": "n", "int": {"min": 1, "max": 1000}}], "random")
    tried = {n: Tried({"n": n}, {}, failed=False) for n in range(1, 1001) if n not in left}
    proposals = [make_sampler(spec).propose(index, tried) for index in range(1001, 1081)]
    assert proposals == [make_sampler(spec).propose(index, tried) for index in range(1001, 1081)]
    last = "new trial: random, of the combinations that were not tried"
    walked = [each.parameters["n"] for each in proposals if each and each.why == last]
    assert len(walked) > 40
    assert set(walked) == left


def test_a_random_draw_that_is_new_is_not_drawn_again() -> None:
    sampler = make_sampler(study_spec([{"name": "n", "int": {"min": 1, "max": 10**6}}], "random"))
    alone = [sampler.propose(index, {}) for index in range(50)]
    assert alone == search(study_spec([{"name": "n", "int": {"min": 1, "max": 10**6}}], "random"), 50)


# --- initial points

AXES: list[dict[str, Any]] = [
    {"name": "lr", "float": {"min": 1e-5, "max": 0.1, "scale": "log"}},
    {"name": "optimizer", "choice": ["sgd", "adamw"]},
    {"name": "momentum", "float": {"min": 0.0, "max": 0.99}, "when": {"optimizer": ["sgd"]}},
]


@pytest.mark.parametrize("sampler", CONTINUOUS)
def test_initial_points_come_first_and_the_sampler_fills_what_they_leave_out(sampler: str) -> None:
    points: list[dict[str, Value]] = [{"lr": 0.001, "optimizer": "adamw"}, {"optimizer": "sgd"}, {}]
    proposals = search(study_spec(AXES, sampler, points), 5)
    free = search(study_spec(AXES, sampler), 5)
    assert [p.why for p in proposals[:3]] == [f"new trial: initialPoints[{place}]" for place in range(3)]
    assert proposals[0].parameters == points[0]
    assert list(proposals[1].parameters) == ["lr", "optimizer", "momentum"]
    assert (proposals[1].parameters["optimizer"], proposals[1].parameters["lr"]) == ("sgd", free[1].parameters["lr"])
    assert [p.parameters for p in proposals[2:]] == [p.parameters for p in free[2:]]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_initial_points_are_not_repeated(sampler: str) -> None:
    points: list[dict[str, Value]] = [{"optimizer": "adamw", "warmup": 1}, {"warmup": 1}]
    proposals = search(study_spec(FINITE, sampler, points), 20)
    assert proposals[0].parameters == points[0]
    assert len(typed(proposals)) == COMBINATIONS


def test_a_grid_fills_an_initial_point_with_first_values_and_goes_on_in_its_order() -> None:
    proposals = search(study_spec(FINITE, "grid", [{"warmup": 1}]), 20)
    without = search(study_spec(FINITE, "grid"), 20)
    assert without[1].parameters == {"optimizer": "sgd", "momentum": 0.5, "warmup": 1}
    assert proposals[0].parameters == without[1].parameters
    assert proposals[1:] == [without[0], *without[2:]]


def test_the_user_may_try_the_same_point_twice() -> None:
    points: list[dict[str, Value]] = [{"lr": 0.01, "optimizer": "adamw"}] * 2
    assert [p.parameters for p in search(study_spec(AXES, "tpe", points), 2)] == points


def test_a_grid_with_initial_points_is_the_same_in_any_order() -> None:
    spec = study_spec(FINITE, "grid", [{"warmup": 1}])
    in_order = search(spec, 20)
    jumping = make_sampler(spec)
    for index in (3, 0, 7, 5, 5, 1, 6, 2, 4):
        assert in_order[index] == jumping.propose(index, {})

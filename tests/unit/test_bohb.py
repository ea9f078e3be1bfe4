"""BOHB's model: the numbers that the paper has."""

from typing import Any

import numpy as np
import pytest

from halvard.samplers.bohb import Bohb
from halvard.samplers.evidence import Evidence, gather
from halvard.tried import Tried
from unit.searches import (
    MIXED,
    SQUARE,
    Objective,
    ask,
    bowl,
    make_sampler,
    network,
    results,
    search,
    steep,
    study_spec,
    why,
)


def evidence(count: int, failed: int = 0) -> Evidence:
    tried = results(count) | {
        1000 + index: Tried(each.parameters, {}, failed=True) for index, each in results(failed, seed=1).items()
    }
    found = gather(tried, 1, sign=1)
    assert isinstance(found, Evidence)
    return found


@pytest.mark.parametrize(("count", "good", "bad"), [(7, 5, 5), (10, 5, 5), (20, 5, 15), (100, 15, 85)])
def test_fifteen_percent_are_good_and_neither_side_has_fewer_than_the_parameters_and_one(
    count: int, good: int, bad: int
) -> None:
    found = evidence(count)
    split = Bohb(study_spec(sampler="bohb"))._split(found)
    assert [list(side) for side in split] == [found.ranked[:good], found.ranked[-bad:]]


def test_failed_trials_are_bad_and_no_more_of_them_than_bad_results() -> None:
    found = evidence(20, failed=50)
    _, bad = Bohb(study_spec(sampler="bohb"))._split(found)
    assert len([trial for trial in bad if trial in found.hopeless]) in range(10, 16)
    assert len([trial for trial in bad if trial in found.ranked]) == 15


def test_two_results_more_than_parameters_and_one_are_enough() -> None:
    axes = [{"name": f"x{place}", "float": {"min": 0, "max": 1}} for place in range(20)]
    assert ask(make_sampler(study_spec(axes, "bohb")), 0, {}).why == "new trial: random, 0 of 23 results"
    assert ask(make_sampler(study_spec(SQUARE[:1], "bohb")), 0, {}).why == "new trial: random, 0 of 4 results"


def test_a_third_is_random() -> None:
    sampler, tried = make_sampler(study_spec(sampler="bohb")), results(20)
    random = ["random" in ask(sampler, index, tried).why for index in range(100, 700)]
    assert np.mean(random) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("axes", "objective", "pending"),
    [(SQUARE, bowl, 1), (SQUARE, steep, 16), (MIXED, network, 16)],
    ids=["one at once", "sixteen at once, a quarter diverges", "choices and conditions"],
)
def test_what_it_proposes_is_far_better_than_what_random_does(
    axes: list[dict[str, Any]], objective: Objective, pending: int
) -> None:
    proposals = [each for seed in range(3) for each in search(study_spec(axes, "bohb", seed), objective, 60, pending)]
    modelled, random = (
        np.nanmedian([objective(each.parameters) for each in proposals if ("bohb on" in each.why) is by_model])
        for by_model in (True, False)
    )
    assert modelled < random / 2


def test_it_does_not_see_what_is_pending() -> None:
    tried = results(20)
    crowd = {1000 + place: Tried({f"x{i}": 0.3 for i in range(4)}, {}, failed=False) for place in range(60)}
    sampler = make_sampler(study_spec(sampler="bohb"))
    alone, beside = ([ask(sampler, index, known) for index in range(100, 120)] for known in (tried, tried | crowd))
    assert alone == beside


def test_results_that_agree_in_a_value_leave_a_kernel_of_some_width() -> None:
    tried = {i: Tried({**each.parameters, "x0": 0.5}, each.results, failed=False) for i, each in results(30).items()}
    sampler = make_sampler(study_spec(sampler="bohb"))
    modelled = [found for index in range(100, 140) if "random" not in (found := ask(sampler, index, tried)).why]
    away = [abs(float(proposal.parameters["x0"]) - 0.5) for proposal in modelled]
    assert 0 < max(away) < 0.03
    assert why(tried, "bohb") == {"new trial: random, as 33% are", "new trial: bohb on 30 results at rung 1"}

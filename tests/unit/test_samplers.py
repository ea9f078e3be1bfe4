"""The samplers: a pure function of (study, trial index)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from halvard import study
from halvard.samplers import Sampler
from halvard.study import StudySpec, Value
from halvard.tried import Tried
from unit.searches import make_sampler

AXES: list[dict[str, Any]] = [
    {"name": "lr", "float": {"min": 1e-5, "max": 0.1, "scale": "log"}},
    {"name": "optimizer", "choice": ["sgd", "adamw"]},
    {"name": "momentum", "float": {"min": 0.0, "max": 0.99}, "when": {"optimizer": ["sgd"]}},
    {"name": "layers", "int": {"min": 2, "max": 8}},
]
GRID: list[dict[str, Any]] = [
    {"name": "layers", "int": {"min": 1, "max": 3}},
    {"name": "bias", "choice": [True, False]},
]


def study_spec(axes: list[dict[str, Any]], sampler: str, seed: int = 7) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": axes,
            "sampler": {sampler: {}},
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 10},
            "seed": seed,
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def ask(sampler: Sampler, index: int, tried: Mapping[int, Tried] = MappingProxyType({})) -> Mapping[str, Value] | None:
    proposal = sampler.propose(index, tried)
    return None if proposal is None else proposal.parameters


def draw(count: int, axes: list[dict[str, Any]] = AXES, seed: int = 7) -> list[Mapping[str, Value]]:
    sampler = make_sampler(study_spec(axes, "random", seed))
    drawn = [ask(sampler, index) for index in range(count)]
    return [parameters for parameters in drawn if parameters is not None]


def test_a_random_trial_depends_on_seed_and_index_alone() -> None:
    forwards = draw(20)
    sampler = make_sampler(study_spec(AXES, "random"))
    assert forwards == [ask(sampler, index) for index in reversed(range(20))][::-1]


def test_what_a_seed_draws_does_not_change_between_releases() -> None:
    assert draw(2) == [
        {"lr": 0.008968998073426836, "optimizer": "adamw", "layers": 5},
        {"lr": 0.006062228466031663, "optimizer": "adamw", "layers": 3},
    ]


@pytest.mark.parametrize("seed", [0, 1, -1, -2, 2**31, 2**32, 2**32 + 7, 2**63, -(2**63), 2**200])
def test_every_integer_is_a_seed_of_its_own(seed: int) -> None:
    drawn = {tuple(parameters.items()) for parameters in draw(50, seed=seed)}
    assert len(drawn) == 50
    assert drawn.isdisjoint(tuple(parameters.items()) for parameters in draw(50, seed=7))


def test_a_negative_seed_is_not_its_positive_twin() -> None:
    assert draw(1, seed=-5) != draw(1, seed=5)


def test_a_seed_and_an_index_do_not_run_into_each_other() -> None:
    words = make_sampler(study_spec(AXES, "random", seed=5 + 2**32))
    assert ask(words, 0) != draw(2, seed=5)[1]


def test_a_condition_does_not_shift_other_parameters() -> None:
    unconditional = [axis | {"when": {}} for axis in AXES]
    for conditional, always in zip(draw(50), draw(50, unconditional), strict=True):
        assert conditional == {name: value for name, value in always.items() if name in conditional}


def test_momentum_is_drawn_only_for_the_optimizer_that_has_it() -> None:
    drawn = draw(200)
    assert {("momentum" in p, p["optimizer"]) for p in drawn} == {(True, "sgd"), (False, "adamw")}


def test_random_values_are_plain_python() -> None:
    types = {
        name: {type(p[name]) for p in draw(100) if name in p} for name in ("lr", "optimizer", "momentum", "layers")
    }
    assert types == {"lr": {float}, "optimizer": {str}, "momentum": {float}, "layers": {int}}


def test_random_log_values_are_log_uniform() -> None:
    rates = np.log10([float(p["lr"]) for p in draw(4000)])
    counts, _ = np.histogram(rates, bins=np.linspace(-5, -1, 17))
    chi_square = float(((counts - 250) ** 2 / 250).sum())
    assert counts.sum() == 4000
    assert chi_square < 37.7  # the 99.9 % point at 15 degrees of freedom


def test_trials_next_to_each_other_are_not_correlated() -> None:
    rates = np.log10([float(p["lr"]) for p in draw(4000)])
    assert abs(np.corrcoef(rates[:-1], rates[1:])[0, 1]) < 0.05


def test_a_grid_is_exhausted_after_its_last_combination() -> None:
    sampler = make_sampler(study_spec(GRID, "grid"))
    found = [ask(sampler, index) for index in range(6)]
    assert found == [{"layers": n, "bias": b} for n in (1, 2, 3) for b in (True, False)]
    assert [ask(sampler, index) for index in (6, 6, 7, 1000)] == [None, None, None, None]


def test_a_grid_is_the_same_in_any_order() -> None:
    in_order = make_sampler(study_spec(GRID, "grid"))
    expected = [ask(in_order, index) for index in range(8)]
    jumping = make_sampler(study_spec(GRID, "grid"))
    for index in (3, 0, 7, 5, 5, 1, 6, 2, 4):
        assert expected[index] == ask(jumping, index)


def test_an_exhausted_grid_is_not_walked_again_at_every_question() -> None:
    sampler = make_sampler(study_spec([{"name": "x", "int": {"min": 1, "max": 300_000}}], "grid"))
    assert ask(sampler, 299_999) == {"x": 300_000}
    assert [ask(sampler, 300_000) for _ in range(2000)] == [None] * 2000


def test_no_sampler_is_refused() -> None:
    nothing = study_spec(AXES, "random").model_copy(update={"sampler": study.Sampler()})
    with pytest.raises(ValueError, match=r"spec\.sampler names no sampler"):
        make_sampler(nothing)

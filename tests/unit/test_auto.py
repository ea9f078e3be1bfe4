"""`auto`: it learns where there is something to learn, else it is at random, and says which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from halvard import samplers
from halvard.forecast.forecaster import Forecaster
from halvard.space import is_active
from halvard.study import FullBudget, Limits, Scheduler, StudySpec, Value
from halvard.tried import Tried
from halvard.tuner import Tuner
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

RANDOM = "new trial: random, as 25% are"


def one_rung(axes: list[dict[str, Any]] = SQUARE, sampler: str = "auto", seed: int = 0) -> StudySpec:
    return study_spec(axes, sampler, seed).model_copy(update={"scheduler": Scheduler(none=FullBudget(budget=1))})


@pytest.mark.parametrize(
    ("axes", "objective", "pending"),
    [(SQUARE, bowl, 1), (SQUARE, steep, 16), (MIXED, network, 16)],
    ids=["one at once", "sixteen at once, a quarter diverges", "choices and conditions"],
)
def test_it_finds_a_clearly_better_trial_than_random(
    axes: list[dict[str, Any]], objective: Objective, pending: int
) -> None:
    found, random = (
        np.array([best(one_rung(axes, each, seed), objective, pending, 60) for seed in range(4)])
        for each in ("auto", "random")
    )
    gains = random - found
    assert gains.mean() > max(0.2, 2 * gains.std() / np.sqrt(4))


def test_maximising_is_minimising_mirrored() -> None:
    down = search(study_spec(MIXED, "auto"), network, 40, pending=16)
    up = search(study_spec(MIXED, "auto", goal="maximize"), network, 40, pending=16, sign=-1)
    assert down == up


def test_what_it_says_is_where_a_trial_comes_from() -> None:
    assert why({}, "auto") == {"new trial: random, 0 of 20 results"}
    assert why(results(19), "auto") == {"new trial: random, 19 of 20 results"}
    assert why(results(40), "auto") == {RANDOM, "new trial: auto on 40 results"}
    equal = {index: Tried(each.parameters, {1: 0.5}, failed=False) for index, each in results(30).items()}
    assert why(equal, "auto") == {"new trial: random, all 30 finite results are equal"}


def test_a_quarter_is_random_and_the_same_as_random_would_have_tried() -> None:
    tried = results(40)
    auto, random = make_sampler(study_spec(sampler="auto")), make_sampler(study_spec(sampler="random"))
    asked = {index: ask(auto, index, tried) for index in range(100, 180)}
    share = [index for index, each in asked.items() if each.why == RANDOM]
    assert 10 <= len(share) <= 32
    assert all(asked[index].parameters == ask(random, index, tried).parameters for index in share)


def test_where_parameters_say_nothing_it_is_random() -> None:
    said = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        tried = {
            index: Tried(each.parameters, {1: float(rng.random())}, failed=False)
            for index, each in results(40, seed=seed).items()
        }
        said |= why(tried, "auto")
    assert "new trial: random, as nothing was learnt yet about where good trials lie" in said


def test_the_order_of_what_is_known_does_not_matter() -> None:
    tried = results(45)
    one, other = (make_sampler(study_spec(sampler="auto")) for _ in range(2))
    shuffled = dict(reversed(tried.items()))
    assert [ask(one, index, tried) for index in range(50, 60)] == [
        ask(other, index, shuffled) for index in range(50, 60)
    ]


def test_a_hundred_at_once_do_not_all_go_to_one_place() -> None:
    """One parameter, and nothing comes back while they begin."""
    spec = one_rung(SQUARE[:1])
    rng = np.random.default_rng(0)
    tried = {
        index: Tried({"x0": u}, {1: abs(u - 0.3)}, failed=False) for index, u in enumerate(rng.random(30).tolist())
    }
    told, tuner_like = Forecaster(spec), dict(tried)
    for index, each in tried.items():
        told.learn(index, each)
    sampler = samplers.make_sampler(spec, told)
    asked = []
    for index in range(30, 130):
        proposal = ask(sampler, index, tuner_like)
        tuner_like[index] = Tried(proposal.parameters, {}, failed=False)
        told.learn(index, tuner_like[index])
        if proposal.why != RANDOM:
            asked.append(float(proposal.parameters["x0"]))
    assert len(set(asked)) == len(asked)
    assert np.std(asked) > 0.01


def test_it_learns_from_all_rungs_at_once() -> None:
    """Nine results at any one rung, but together they tell."""
    drawn = results(36)
    tried = {
        index: Tried(each.parameters, {1: bowl(each.parameters) + 1}, failed=False)
        if index % 4
        else Tried(each.parameters, {1: bowl(each.parameters) + 1, 3: bowl(each.parameters)}, failed=False)
        for index, each in drawn.items()
    }
    asked = [ask(make_sampler(study_spec(sampler="auto")), index, tried) for index in range(100, 130)]
    learnt = [bowl(each.parameters) for each in asked if each.why != RANDOM]
    assert np.mean(learnt) < 0.6 * np.mean([bowl(each.parameters) for each in drawn.values()])


def test_what_is_not_active_is_not_there_and_integers_stay_on_their_grid() -> None:
    spec = study_spec(MIXED, "auto")
    for proposal in search(spec, network, 60, pending=4)[20:]:
        parameters: Mapping[str, Value] = proposal.parameters
        assert list(parameters) == [each.name for each in spec.parameters if is_active(each, parameters)]
        assert all(each.allows(parameters[each.name]) for each in spec.parameters if each.name in parameters)


def test_in_a_small_space_it_tries_everything_once() -> None:
    axes = [{"name": "a", "int": {"min": 1, "max": 6}}, {"name": "b", "choice": ["u", "v", "w", "x", "y"]}]
    spec = study_spec(axes, "auto")
    tried: dict[int, Tried] = {}
    sampler = make_sampler(spec)
    for index in range(30):
        parameters = ask(sampler, index, tried).parameters
        tried[index] = Tried(parameters, {1: float(parameters["a"])}, failed=False)
    combinations = {tuple(sorted(map(str, each.parameters.values()))) for each in tried.values()}
    assert len(combinations) == 30
    assert sampler.propose(30, tried) is None


def test_among_choices_alone_it_beats_random_by_far() -> None:
    """Most of its candidates mean the same as another one, or as a trial."""
    axes = [{"name": f"x{place}", "choice": list(range(6))} for place in range(3)]

    def away(parameters: Mapping[str, Value]) -> float:
        return sum((float(value) - 4) ** 2 for value in parameters.values())

    for seed in range(3):
        found, random = (
            np.mean([away(each.parameters) for each in search(study_spec(axes, sampler, seed), away, 80, 1)[25:]])
            for sampler in ("auto", "random")
        )
        assert found < 0.75 * random


@pytest.mark.parametrize("broken", ["Forecast.ahead", "Process"])
def test_a_model_that_fails_leaves_it_random_and_says_so_as_any_sampler_that_fails(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise np.linalg.LinAlgError("singular")

    tuner = Tuner(study_spec(sampler="auto").model_copy(update={"limits": Limits(trials=80)}))
    monkeypatch.setattr(f"halvard.forecast.forecast.{broken}", fail)
    legs = []
    while leg := tuner.ask():
        legs.append(leg)
        tuner.tell(leg.index, leg.budget, bowl(leg.parameters))
    failed = {leg.decision for leg in legs if leg.sampler_failed}
    assert failed == {"new trial: random, as auto failed: LinAlgError: singular"}
    random = make_sampler(study_spec(sampler="random"))
    at_random = {leg.index: leg.parameters for leg in legs if leg.sampler_failed}
    assert at_random == {index: ask(random, index, {}).parameters for index in at_random}

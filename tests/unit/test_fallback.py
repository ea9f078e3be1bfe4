"""A sampler that fails does not end its study."""

from collections.abc import Mapping
from typing import Any

import pytest

from halvard.decide import decide
from halvard.plan import Announce
from halvard.progress import Progress
from halvard.samplers import Proposal
from halvard.samplers.fallback import propose
from halvard.study import Study, StudySpec
from halvard.tried import Tried
from halvard.tuner import Tuner
from unit.searches import SQUARE, bowl, make_sampler, study_spec


class Failing:
    """Fails at every third trial, or at every one."""

    def __init__(self, error: BaseException, every: int = 3) -> None:
        self._error, self._every = error, every
        self._random = make_sampler(study_spec(sampler="random", seed=99))

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal | None:
        if index % self._every == 0:
            raise self._error
        return self._random.propose(index, tried)


def study(**changes: Any) -> StudySpec:
    return study_spec(sampler="gp").model_copy(update=changes)


def test_a_study_goes_on_at_random_where_its_sampler_fails() -> None:
    tuner = Tuner(study(), sampler=lambda _: Failing(ValueError("no such thing\nand more of it")))
    legs = []
    while leg := tuner.ask():
        legs.append(leg)
        tuner.tell(leg.index, leg.budget, bowl(leg.parameters))
    new = [leg for leg in legs if leg.new]
    assert [leg.index for leg in new] == list(range(10))
    assert [leg.sampler_failed for leg in new] == [leg.index % 3 == 0 for leg in new]
    assert not any(leg.sampler_failed for leg in legs if not leg.new)
    assert any(leg.index % 3 == 0 for leg in legs if not leg.new)
    random = make_sampler(study_spec(sampler="random"))
    for leg in new:
        if leg.index % 3 == 0:
            assert leg.decision == "new trial: random, as gp failed: ValueError: no such thing"
            assert Proposal(leg.parameters) == random.propose(leg.index, {})
        else:
            assert leg.decision == "new trial"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(), "RuntimeError: "),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("y" * 500), "ValueError: " + "y" * 188),
        (ZeroDivisionError("\n"), "ZeroDivisionError: "),
    ],
)
def test_an_error_is_said_in_one_line_that_is_not_too_long(error: Exception, said: str) -> None:
    proposal = propose(Failing(error), study(), 0, {})
    assert proposal is not None
    assert proposal.why == f"new trial: random, as gp failed: {said}"


def test_an_initial_point_is_one_all_the_same() -> None:
    spec = study(initial_points=({"x0": 0.5},))
    proposal = propose(Failing(ValueError("no")), spec, 0, {})
    assert proposal is not None
    assert (proposal.parameters["x0"], proposal.why) == (0.5, "new trial: initialPoints[0]")


def test_a_space_that_is_over_is_over() -> None:
    spec = study_spec([{"name": "x", "choice": ["only"]}], "tpe")
    assert propose(Failing(ValueError("no")), spec, 3, {0: Tried({"x": "only"}, {}, failed=False)}) is None


def test_only_errors_are_caught() -> None:
    with pytest.raises(KeyboardInterrupt):
        propose(Failing(KeyboardInterrupt()), study_spec(SQUARE), 0, {})


def test_people_are_told_once_that_a_sampler_fails() -> None:
    spec = study(parallelism=4)
    progress = Progress(Study(name="study", spec=spec), sampler=lambda _: Failing(ValueError("no such thing"), every=1))
    announced = [action for action in decide(progress, [], 0.0).actions if isinstance(action, Announce)]
    assert [(each.kind, each.reason) for each in announced] == [("Normal", "Started"), ("Warning", "SamplerFailed")]
    assert announced[1].message == "trial 0: new trial: random, as gp failed: ValueError: no such thing"

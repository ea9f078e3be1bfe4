"""Forecasts: what they say, when there are none, and what they are a function of."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.forecast.forecast import COST_EXPONENT, Forecast
from halvard.forecast.forecaster import FEWEST, Forecaster
from halvard.study import StudySpec
from halvard.tried import Tried
from unit.searches import SQUARE, study_spec

RNG = np.random.default_rng(0)
BUDGETS = (1, 3, 9)  # of the studies in unit.searches


def forecaster(tried: Mapping[int, Tried], spec: StudySpec | None = None) -> Forecaster:
    made = Forecaster(spec or study_spec(SQUARE, "auto"))
    for index, each in tried.items():
        made.learn(index, each)
    return made


def forecast(tried: Mapping[int, Tried], spec: StudySpec | None = None) -> Forecast:
    made = forecaster(tried, spec).forecast()
    assert isinstance(made, Forecast), made
    return made


def trial(*values: float | None, at: float = 0.5, failed: bool = False, seconds: float = 0, order: int = 0) -> Tried:
    """With results at the first rungs; `at`: the first coordinate, all others are random."""
    parameters = {"x0": at, **{f"x{place}": float(RNG.random()) for place in range(1, 4)}}
    results = dict(zip(BUDGETS, values, strict=False))
    return Tried(parameters, results, failed, dict.fromkeys(results, seconds), dict.fromkeys(results, order))


def study(count: int, noise: float = 0.05, seed: int = 0) -> dict[int, Tried]:
    """The value is the first coordinate; one in three trains to 3, one in nine to 9."""
    rng = np.random.default_rng(seed)
    at = rng.random(count)
    lengths = [3 if index % 9 == 0 else 2 if index % 3 == 0 else 1 for index in range(count)]
    return {
        index: trial(*(at[index] + noise * rng.standard_normal(length)), at=at[index], order=index + 1)
        for index, length in enumerate(lengths)
    }


def test_it_expects_of_points_what_others_near_them_have_shown() -> None:
    made = forecast(study(60))
    points = np.array([[at, 0.5, 0.5, 0.5] for at in (0.05, 0.3, 0.6, 0.95)])
    promise = made.ahead(points, np.empty((0, 4)))
    assert made.skill > 0.5
    assert (np.diff(promise) < 0).all()


def test_a_trial_is_expected_to_end_between_its_own_place_and_that_of_its_neighbours() -> None:
    tried = study(60)
    lucky, unlucky = trial(0.02, at=0.9), trial(0.9, at=0.02)
    made = forecast(tried | {60: lucky, 61: unlucky})
    honest = forecast(tried | {60: trial(0.02, at=0.02), 61: trial(0.9, at=0.9)})
    assert made.mean[60] > honest.mean[60]
    assert made.mean[61] < honest.mean[61]


def test_what_is_finished_is_certain() -> None:
    tried = study(40)
    made = forecast(tried)
    finished = [made.row(index) for index, each in tried.items() if 9 in each.results]
    assert (made.deviation[finished] < 0.01).all()
    assert all(
        made.scale.value(made.mean[made.row(index)]) == pytest.approx(each.results[9], abs=0.05)
        for index, each in tried.items()
        if 9 in each.results
    )


def test_parameters_that_say_nothing_are_left_out() -> None:
    """What is seen is independent of where: then each trial is expected to end where its own results have it."""
    helped = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        tried = {index: trial(float(rng.random()), at=float(rng.random())) for index in range(40)}
        made = forecast(tried)
        order = np.argsort([each.results[1] for each in tried.values()])
        helped += made.skill > 0
        if made.skill <= 0:
            assert (np.diff(made.mean[order]) >= 0).all()
    assert helped < 10


def test_failed_trials_and_values_that_are_not_finite_are_the_worst() -> None:
    made = forecast(
        study(40) | {40: trial(None, at=0.01), 41: trial(0.01, at=0.01, failed=True), 42: trial(failed=True)}
    )
    rows = [made.row(index) for index in (40, 41, 42)]
    assert made.mean[rows] == pytest.approx([made.mean.max()] * 3, abs=0.05)
    assert made.to_beat < made.mean[rows[0]] - 1


def test_around_pending_trials_it_is_more_certain_and_nothing_else_changes() -> None:
    made = forecast(study(60))
    worse, nothing = np.full((1, 4), 0.5), np.empty((0, 4))
    crowd = worse + 0.02 * np.random.default_rng(1).standard_normal((150, 4))
    far = np.array([[0.02, 0.9, 0.1, 0.9]])
    assert made.ahead(worse, crowd)[0] < made.ahead(worse, nothing)[0] - 0.05
    assert made.ahead(far, crowd)[0] == pytest.approx(made.ahead(far, nothing)[0], abs=0.3)


def test_what_costs_less_promises_more() -> None:
    tried = study(60)
    measured = {index: replace(each, seconds={1: 10 ** float(each.parameters["x1"])}) for index, each in tried.items()}
    made, nothing = forecast(measured), np.empty((0, 4))
    points = np.array([[0.3, 0.05, 0.5, 0.5], [0.3, 0.95, 0.5, 0.5]])
    cheap, dear = made.ahead(points, nothing) - forecast(tried).ahead(points, nothing)
    assert cheap - dear == pytest.approx(COST_EXPONENT * 0.9 * math.log(10), rel=0.15)
    assert "s per unit" in made.sentence(3)
    assert "s per unit" not in forecast(study(60)).sentence(3)


# --- no forecast


@pytest.mark.parametrize(
    ("tried", "why"),
    [
        ({}, "0 of 20 results"),
        ({index: trial(float(index)) for index in range(12)} | {12: trial()}, "12 of 20 results"),
        ({index: trial(7.0, 7.0) for index in range(12)}, "all 24 finite results are equal"),
        ({index: trial(None) for index in range(30)}, "no trial with a finite result is left"),
        ({index: trial(float(index), failed=True) for index in range(30)}, "no trial with a finite result is left"),
    ],
)
def test_where_nothing_can_be_said_it_says_why(tried: dict[int, Tried], why: str) -> None:
    assert forecaster(tried).forecast() == why


def test_a_model_that_fails_says_so_at_every_question_and_is_tried_again_when_more_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried, attempts = study(41), []

    def broken(*_: object) -> None:
        attempts.append(1)
        raise np.linalg.LinAlgError("singular")

    made = forecaster({index: tried[index] for index in range(40)})
    with monkeypatch.context() as patch:
        patch.setattr("halvard.forecast.forecast.Process", broken)
        for _ in range(3):
            with pytest.raises(np.linalg.LinAlgError, match="singular"):
                made.forecast()
        assert len(attempts) == 1
    made.learn(40, tried[40])
    assert isinstance(made.forecast(), Forecast)


# --- a function of what is known


def test_the_order_in_which_trials_are_told_does_not_matter() -> None:
    tried = study(70)
    backwards = dict(reversed(tried.items()))
    assert (forecast(tried).promise(2, None) == forecast(backwards).promise(2, None)).all()


def test_one_that_was_told_everything_at_once_goes_on_as_the_one_that_was_asked_all_along() -> None:
    tried, asked = study(75), Forecaster(study_spec(SQUARE, "auto"))
    said = None
    for index, each in tried.items():
        asked.learn(index, Tried(each.parameters, {}, failed=False))
        asked.forecast()
        asked.learn(index, each)
        said = asked.forecast()
    assert isinstance(said, Forecast)
    assert (said.promise(2, None) == forecast(tried).promise(2, None)).all()


def test_maximising_is_minimising_mirrored() -> None:
    tried = study(50)
    mirrored = {
        index: Tried(each.parameters, {b: -v for b, v in each.results.items() if v is not None}, each.failed)
        for index, each in tried.items()
    }
    plain = {index: Tried(each.parameters, each.results, each.failed) for index, each in tried.items()}
    up, down = forecast(mirrored, study_spec(SQUARE, "auto", goal="maximize")), forecast(plain)
    assert (up.promise(2, None) == down.promise(2, None)).all()
    assert up.scale.value(-1.0) == -down.scale.value(-1.0)


VALUE = st.none() | st.floats(-1e300, 1e300) | st.integers(-2, 2).map(float)
SECONDS = st.sampled_from([0.0, 1e-300, 1.0, 1e300, math.inf, math.nan, -1.0])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.lists(VALUE, max_size=3), st.booleans(), SECONDS, st.floats(0, 1)), min_size=12, max_size=40)
)
def test_whatever_is_reported_it_says_something_finite_or_why_not(
    trials: list[tuple[list[float | None], bool, float, float]],
) -> None:
    made = forecaster(
        {
            index: trial(*values, at=at, failed=failed, seconds=seconds)
            for index, (values, failed, seconds, at) in enumerate(trials)
        }
    )
    said = made.forecast()
    if isinstance(said, str):
        assert said.endswith(("results", "equal", "left"))
        return
    assert np.isfinite(said.promise(2, None)).all()
    assert np.isfinite(said.ahead(np.random.default_rng(0).random((5, 4)), made.pending())).all()
    assert all(said.sentence(index) for index in said.trials)
    assert sum(len(values) for values, *_ in trials) >= FEWEST

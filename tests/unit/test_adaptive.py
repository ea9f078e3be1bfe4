"""`adaptive`: who goes on, what holds the others back, and that it is ASHA while there is no forecast."""

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from halvard.forecast.forecast import Forecast
from halvard.schedulers.adaptive import RHO
from halvard.study import StudySpec
from halvard.trial import RungResult, Trial, TrialSpec, TrialStatus
from halvard.tuner import Leg, Tuner
from unit.searches import SQUARE
from unit.streams import VALUES

ETA, BUDGETS = 3, (1, 3, 9, 27)
Objective = Callable[[Leg], float | None]


def spec(scheduler: str = "adaptive", sampler: str = "random", seed: int = 0, goal: str = "minimize") -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": goal},
            "parameters": SQUARE,
            "sampler": {sampler: {}},
            "scheduler": {scheduler: {"maxBudget": BUDGETS[-1], "reductionFactor": ETA}},
            "limits": {"trials": 10_000},
            "seed": seed,
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def x(leg: Leg, place: int = 0) -> float:
    return float(leg.parameters[f"x{place}"])


class Study:
    """A tuner, and what became of its legs: some run at once, and end in the order in which they began.

    A leg takes `seconds` for each unit, and its Pod `start` but for who goes on right after reporting.
    """

    def __init__(
        self,
        spec: StudySpec,
        objective: Objective,
        seconds: Callable[[Leg], float] = lambda _: 0.0,
        start: float = 0.0,
    ) -> None:
        self.tuner = Tuner(spec)
        self.spec, self.objective, self.seconds, self.start = spec, objective, seconds, start
        self.told: Leg | None = None  # just now
        self.hot: set[tuple[int, int]] = set()  # legs that needed no Pod
        self.running: list[Leg] = []
        self.legs: list[Leg] = []
        self.results: dict[int, list[RungResult]] = {}
        self.why: list[str] = []  # the answers

    def run(self, results: int, workers: int = 4) -> "Study":
        for _ in range(results):
            while len(self.running) < workers and (leg := self.tuner.ask()) is not None:
                self.legs.append(leg)
                self.running.append(leg)
                if self.told and self.told.index == leg.index:
                    self.hot.add((leg.index, leg.budget))
                self.told = None
            self.tell(self.running.pop(0))
        return self

    def tell(self, leg: Leg) -> None:
        self.told, started = leg, 0.0 if (leg.index, leg.budget) in self.hot else self.start
        value, seconds = self.objective(leg), self.seconds(leg) * (leg.budget - leg.start) + started
        answer = self.tuner.tell(leg.index, leg.budget, value, seconds)
        self.why.append(answer.why)
        finite = value if value is not None and math.isfinite(value) else None
        self.results.setdefault(leg.index, []).append(
            RungResult.model_validate(
                {
                    "budget": leg.budget,
                    "value": finite,
                    "step": leg.budget,
                    "seconds": round(seconds, 3),  # as it is stored
                    "at": 0,
                    "order": answer.order,
                }
            )
        )

    @property
    def trials(self) -> list[Trial]:
        latest = {leg.index: leg for leg in self.legs}
        return [
            Trial(
                name=f"small-{index}",
                spec=leg.trial_spec(),
                status=TrialStatus(state="Paused", rungs=tuple(self.results.get(index, ()))),
            )
            for index, leg in latest.items()
        ]

    @property
    def promotions(self) -> list[Leg]:
        return [leg for leg in self.legs if not leg.new]


def bowl(leg: Leg) -> float:
    return sum((x(leg, place) - 0.3) ** 2 for place in range(4)) + 1 / leg.budget


def crossing(leg: Leg) -> float:
    """Who leads at the first rung ends worst, as the first coordinate tells."""
    return x(leg) if leg.budget == 1 else 2 - x(leg)


# --- as ASHA


def test_while_there_is_no_forecast_it_decides_as_asha_does_and_says_so() -> None:
    ours, ashas = (Study(spec(each), bowl).run(19) for each in ("adaptive", "asha"))
    decided = [[(leg.index, leg.budget) for leg in study.legs] for study in (ours, ashas)]
    assert decided[0] == decided[1]
    assert ours.promotions[0].decision.endswith(" of 20 results)")
    assert "(as asha: 1 of 20 results)" in ours.why[0]


def test_where_all_results_are_equal_it_stays_asha() -> None:
    ours, ashas = (Study(spec(each), lambda _: 0.5).run(60) for each in ("adaptive", "asha"))
    assert [leg.index for leg in ours.legs] == [leg.index for leg in ashas.legs]
    assert "as asha: all 59 finite results are equal" in ours.why[58]


def test_a_model_that_fails_leaves_it_asha(monkeypatch: pytest.MonkeyPatch) -> None:
    ashas = Study(spec("asha"), bowl).run(60)

    def broken(*_: object) -> None:
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr("halvard.forecast.forecaster.Forecast", broken)
    ours = Study(spec(), bowl).run(60)
    assert [leg.index for leg in ours.legs] == [leg.index for leg in ashas.legs]
    assert "as asha: the model failed: singular" in ours.why[-1]


# --- who goes on


def test_it_learns_that_the_leaders_end_worst() -> None:
    ours, ashas = (Study(spec(each), crossing).run(150, workers=1) for each in ("adaptive", "asha"))
    promoted = [[x(leg) for leg in study.promotions if leg.start == 1][10:35] for study in (ours, ashas)]
    assert np.mean(promoted[0]) > 0.6
    assert np.mean(promoted[1]) < 0.35


def test_of_those_that_promise_as_much_the_cheaper_go_on() -> None:
    def coin(leg: Leg) -> float:
        return float(np.random.default_rng([leg.index, leg.budget]).integers(2))

    study = Study(spec(), coin, lambda leg: 10 ** x(leg, 3)).run(150, workers=1)
    went_on = {leg.index for leg in study.promotions}
    costs: dict[bool, list[float]] = {True: [], False: []}
    for leg in study.legs:
        if leg.new and leg.index not in {each.index for each in study.running} and coin(leg) == 0:
            costs[leg.index in went_on].append(x(leg, 3))
    assert np.mean(costs[True]) < np.mean(costs[False]) - 0.2


def test_a_rung_never_costs_more_than_its_share_of_what_the_one_below_took() -> None:
    study = Study(spec(), bowl, lambda leg: 10 ** x(leg, 3)).run(250, workers=8)
    spent = dict.fromkeys(BUDGETS, 0.0)
    for results in study.results.values():
        for result in results:
            spent[result.budget] += result.seconds
    largest = max(10 * (above - below) for below, above in itertools.pairwise(BUDGETS))
    for below, above in itertools.pairwise(BUDGETS):
        assert spent[above] <= RHO * spent[below] + largest
    assert spent[BUDGETS[-1]] > 0


@pytest.mark.parametrize("stream", VALUES)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_what_is_not_finite_never_goes_on_and_nobody_goes_on_twice(stream: str, goal: str) -> None:
    rng, steps = np.random.default_rng(1), itertools.count()
    study = Study(spec(goal=goal), lambda _: VALUES[stream](rng, next(steps))).run(80)
    values = {(index, r.budget): r.value for index, results in study.results.items() for r in results}
    assert all(values[leg.index, leg.start] is not None for leg in study.promotions)
    decided = [(leg.index, leg.budget) for leg in study.legs]
    assert len(set(decided)) == len(decided)
    assert {leg.index for leg in study.promotions}


def test_a_trial_that_was_withdrawn_never_goes_on() -> None:
    study = Study(spec(), bowl).run(60)
    idle = set(study.results) - {leg.index for leg in study.running}
    for index in idle:
        study.tuner.withdraw(index)
    study.run(60)
    assert not idle & {leg.index for leg in study.legs[-40:] if not leg.new}


def test_it_is_as_good_as_mirrored() -> None:
    down = Study(spec(sampler="auto"), bowl).run(120)
    up = Study(spec(sampler="auto", goal="maximize"), lambda leg: -bowl(leg)).run(120)
    assert [(leg.index, leg.budget) for leg in down.legs] == [(leg.index, leg.budget) for leg in up.legs]


def test_who_trains_to_the_next_rung_before_another_pod_has_started_goes_on_at_once() -> None:
    study = Study(spec(), bowl, lambda leg: 4 ** x(leg, 3), start=6.0).run(200, workers=1)
    late = [leg for leg in study.legs if leg.new][-20:-1]
    went_on = {(leg.index, leg.budget) for leg in study.promotions}
    cheap = [leg for leg in late if 3 * 4 ** x(leg, 3) < 0.7 * 6.0]
    assert cheap
    assert all((leg.index, 3) in went_on & study.hot for leg in cheap)
    assert any((leg.index, 3) not in went_on for leg in late)
    words = re.compile(r"; to train on takes less than the [\d.]+ s that a Pod takes to start$")
    said = {leg.index: words.search(leg.decision) is not None for leg in study.promotions if leg.budget == 3}
    assert all(said[leg.index] for leg in cheap)
    assert not any(words.search(leg.decision) for leg in study.promotions if leg.budget > 9)


def test_who_is_in_its_pod_is_cheaper_than_who_waits() -> None:
    def coin(leg: Leg) -> float:
        return float(np.random.default_rng([leg.index, leg.budget]).integers(2))

    hot, cold = (len(Study(spec(), coin, lambda _: 1.0, start).run(300, workers=1).hot) for start in (2.9, 0.0))
    assert hot > 1.5 * cold


# --- what it says


def test_a_decision_says_what_is_expected_at_what_cost_and_what_decided() -> None:
    study = Study(spec(), bowl, lambda _: 2.0).run(200)
    number, beyond = r"-?[\d.e-]+", "( or better| or worse)?"
    said = re.compile(
        rf"promoted: value {number} is place \d+ of \d+ at rung \d+; "
        rf"final value expected {number}{beyond} \(90 %: {number}{beyond}( to {number}{beyond})?\), "
        rf"{number}% to beat {number}, 2 s per unit; "
        r"by promise it is place \d+"
    )
    assert said.fullmatch(study.promotions[-1].decision), study.promotions[-1].decision
    held = [why.rsplit("; ", 1)[-1] for why in study.why[100:]]
    assert "only the best 1/3 may go on" in held


def test_it_says_where_parameters_are_left_out() -> None:
    def noise(leg: Leg) -> float:
        return float(np.random.default_rng([leg.index, leg.budget]).random())

    study, said = Study(spec(), noise), set()
    for _ in range(100):
        study.run(1, workers=1)
        leg, forecast = study.legs[-1], study.tuner._forecaster.forecast()
        if isinstance(forecast, Forecast) and leg.budget < BUDGETS[-1]:
            left_out = forecast.skill <= 0
            explained = study.tuner.explain(leg.index, leg.budget)
            assert ("; parameters left out: they do not tell what becomes of trials; " in explained) is left_out
            said.add(left_out)
    assert said == {True, False}


def test_at_the_top_it_says_where_a_trial_ended() -> None:
    study = Study(spec(), bowl).run(200)
    index = next(leg.index for leg in study.legs if leg.budget == BUDGETS[-1] and leg not in study.running)
    assert study.tuner.explain(index, BUDGETS[-1]).endswith(f"at rung {BUDGETS[-1]}, the highest")


def test_a_result_at_no_rung_is_refused() -> None:
    trial = Trial(name="a-0", spec=TrialSpec(index=0, budget=2, parameters={}))
    with pytest.raises(ValueError, match=r"trial 0 has a result at budget 2, which is no rung: \(1, 3, 9, 27\)"):
        Tuner(spec(), [trial])


# --- stop and go on


@pytest.mark.parametrize("seed", range(3))
def test_rebuilt_from_its_trials_in_any_order_it_goes_on_as_if_it_had_never_stopped(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def noisy(leg: Leg) -> float | None:
        draw = np.random.default_rng([seed, leg.index, leg.budget])
        return None if draw.random() < 0.1 else bowl(leg) + 0.1 * float(draw.standard_normal())

    study = Study(spec(sampler="auto", seed=seed), noisy, lambda leg: 5 ** x(leg, 2), start=5.0)
    for _ in range(4):
        study.run(int(rng.integers(15, 40)))
        trials = study.trials
        order = rng.permutation(len(trials))
        rebuilt = Study(study.spec, noisy, study.seconds, study.start)
        rebuilt.told, rebuilt.hot = study.told, set(study.hot)
        rebuilt.tuner = Tuner(study.spec, [trials[place] for place in order])
        rebuilt.running = list(study.running)
        rebuilt.legs, rebuilt.results = list(study.legs), {i: list(r) for i, r in study.results.items()}
        study.run(12)
        rebuilt.run(12)
        assert rebuilt.legs == study.legs
        assert rebuilt.why == study.why[-12:]

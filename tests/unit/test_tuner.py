"""The tuner: ask, tell, and a rebuild from the stored trials at any moment that goes on as if nothing had happened."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard import lifecycle
from halvard.lifecycle import new_trial
from halvard.samplers import Proposal
from halvard.study import StudySpec, Value
from halvard.trial import RungResult, Trial, TrialSpec, TrialState, TrialStatus
from halvard.tried import Tried
from halvard.tuner import GOES_ON, Answer, Leg, Tuner
from halvard_trainer.reports import Report

AXES = [
    {"name": "lr", "float": {"min": 1e-5, "max": 0.1, "scale": "log"}},
    {"name": "optimizer", "choice": ["sgd", "adamw"]},
    {"name": "momentum", "float": {"min": 0.0, "max": 0.9, "step": 0.3}, "when": {"optimizer": ["sgd"]}},
]


def study_spec(trials: int | None = 40, **changes: Any) -> StudySpec:
    spec = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": AXES,
        "sampler": {"random": {}},
        "scheduler": {"asha": {"maxBudget": 9}},
        "limits": {"trials": trials},
        "template": {"spec": {"containers": [{"name": "trainer"}]}},
    }
    return StudySpec.model_validate(spec | changes)


SMALL_GRID: dict[str, Any] = {"parameters": [{"name": "n", "int": {"min": 1, "max": 7}}], "sampler": {"grid": {}}}
GRID = study_spec(None, **SMALL_GRID)


def trial(
    index: int,
    budget: int,
    results: Mapping[int, float | None],
    state: TrialState = "Paused",
    parameters: Mapping[str, Value] = MappingProxyType({}),
    *,
    bracket: int = 0,
) -> Trial:
    """A trial as it is stored."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rungs = tuple(RungResult(budget=rung, value=v, step=rung, seconds=1, at=at) for rung, v in results.items())
    spec = TrialSpec(index=index, bracket=bracket, budget=budget, parameters=dict(parameters))
    return Trial(name=f"study-{index:04}", spec=spec, status=TrialStatus(state=state, rungs=rungs))


def ask(tuner: Tuner) -> Leg:
    leg = tuner.ask()
    assert leg is not None
    return leg


# --- asking and telling


def test_the_first_leg_is_a_new_trial_at_the_lowest_rung() -> None:
    leg = ask(Tuner(study_spec()))
    assert (leg.index, leg.budget, leg.bracket, leg.decision, leg.new) == (0, 1, 0, "new trial", True)
    assert set(leg.parameters) >= {"lr", "optimizer"}


def test_a_promotion_keeps_the_parameters_and_says_why() -> None:
    tuner = Tuner(study_spec())
    legs = [ask(tuner) for _ in range(3)]
    for leg, value in zip(legs, [0.6, 0.44, 0.5], strict=True):
        tuner.tell(leg.index, 1, value)
    why = "promoted: value 0.44 is place 1 of 3 at rung 1; the best goes on (cut-off 0.44)"
    assert ask(tuner) == Leg(1, legs[1].parameters, start=1, budget=3, bracket=0, decision=why, order=7)
    assert (ask(tuner).index, ask(tuner).index) == (3, 4)


def test_telling_answers_where_the_result_stands() -> None:
    tuner = Tuner(study_spec())
    why = "value 0.5 is place 1 of 1 at rung 1; none goes on yet"
    assert tuner.tell(ask(tuner).index, 1, 0.5) == Answer(leg_over=True, stop=False, why=why, order=2)
    why = "value not finite, the last of 2 at rung 1; it never goes on"
    assert tuner.tell(ask(tuner).index, 1, None) == Answer(leg_over=True, stop=False, why=why, order=4)
    tuner.tell(ask(tuner).index, 1, 0.4)
    assert tuner.explain(0, 1) == "value 0.5 is place 2 of 3 at rung 1; the best goes on (cut-off 0.4)"


@pytest.mark.parametrize("number", [np.float32, np.float16, np.uint8, np.bool_])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "scheduler",
    [{"asha": {"maxBudget": 9}}, {"median": {"budget": 9, "trials": 1}}, {"patience": {"budget": 9, "patience": 1}}],
)
def test_a_value_of_numpy_is_the_number_that_is_stored_of_it(scheduler: Any, goal: str, number: Any) -> None:
    told, same = (Tuner(study_spec(scheduler=scheduler, objective={"metric": "a", "goal": goal})) for _ in range(2))
    for index in (0, 1):
        assert ask(told).index == ask(same).index == index
        for step in (1, 2, 9):
            value = number(0.1 * step)
            answer = told.tell(index, step, value)
            assert answer == same.tell(index, step, float(value))
            if answer.stop or answer.leg_over:
                break


def test_reports_below_the_budget_decide_nothing() -> None:
    tuner = Tuner(study_spec(scheduler={"none": {"budget": 9}}))
    ask(tuner)
    assert [tuner.tell(0, step, 0.5) for step in (1, 8)] == [GOES_ON, GOES_ON]
    assert tuner.tell(0, 10, 0.4).why == "value 0.4 is place 1 of 1 at rung 9, the highest"


class Listener:
    """A sampler that keeps what it was told."""

    def __init__(self) -> None:
        self.tried: Mapping[int, Tried] = {}

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal:  # noqa: ARG002
        self.tried = dict(tried)
        return Proposal({"lr": 0.1}, "new trial")


@pytest.mark.parametrize(
    ("scheduler", "values", "results"),
    [
        ({"patience": {"budget": 9, "patience": 2}}, [0.4, 0.5, 0.6], {9: 0.4}),  # it had come to its best
        ({"patience": {"budget": 9, "patience": 2}}, [0.4, math.nan, math.nan], {}),
        ({"median": {"budget": 9}}, [0.4, 0.5, math.nan], {}),  # it might have become better
    ],
)
def test_a_trial_that_had_converged_counts_with_its_best_value_and_any_other_that_was_stopped_as_failed(
    scheduler: Any, values: list[float], results: dict[int, float]
) -> None:
    listener = Listener()
    tuner = Tuner(study_spec(scheduler=scheduler), sampler=lambda _forecaster: listener)
    ask(tuner)
    answers = [tuner.tell(0, step, value) for step, value in enumerate(values, start=1)]
    assert [answer.stop for answer in answers] == [False, False, True]
    tuner.withdraw(0)
    ask(tuner)
    tried = listener.tried[0]
    assert (tried.results, tried.failed) == (results, not results)
    assert tuner.converged(0) == results.get(9)


@pytest.mark.parametrize("scheduler", [{"asha": {"maxBudget": 9}}, {"hyperband": {"maxBudget": 9}}])
def test_what_cannot_be_said_of_a_trial_is_refused_and_changes_nothing(scheduler: Any) -> None:
    tuner = Tuner(study_spec(scheduler=scheduler))
    with pytest.raises(ValueError, match="no report can come from trial 5: it does not exist, there is none yet"):
        tuner.tell(5, 1, 0.5)
    ask(tuner)
    with pytest.raises(ValueError, match="nobody can withdraw trial 5: it does not exist, the last is 0"):
        tuner.withdraw(5)
    with pytest.raises(ValueError, match="trial 0 has no result at budget 1"):
        tuner.explain(0, 1)
    with pytest.raises(ValueError, match="step: nan; has to be a whole number"):
        tuner.tell(0, math.nan, 0.5)  # type: ignore[arg-type]
    for seconds in (None, -1.0, math.inf):
        with pytest.raises(ValueError, match=f"seconds: {seconds}; has to be a number from 0"):
            tuner.tell(0, 1, 0.5, seconds)  # type: ignore[arg-type]
    assert tuner.withdraw(0) == 2
    with pytest.raises(ValueError, match="no report can come from trial 0: it was withdrawn"):
        tuner.tell(0, 9, 0.5)
    with pytest.raises(ValueError, match="nobody can withdraw trial 0: it was withdrawn"):
        tuner.withdraw(0)
    assert ask(tuner).order == 3


@pytest.mark.parametrize("state", ["Failed", "Stopped"])
def test_a_stored_trial_that_is_over_is_refused_a_report_too(state: Literal["Failed", "Stopped"]) -> None:
    tuner = Tuner(study_spec(), [trial(0, 1, {}, state)])
    with pytest.raises(ValueError, match="no report can come from trial 0: it was withdrawn"):
        tuner.tell(0, 1, 0.5)


def test_seconds_count_as_they_are_stored() -> None:
    listener, store = Listener(), Store()
    tuner = Tuner(study_spec(), sampler=lambda _forecaster: listener)
    leg = ask(tuner)
    store.decide(leg)
    store.result(0, 0.5, 2 / 3, tuner.tell(0, leg.budget, 0.5, 2 / 3).order)
    ask(tuner)
    assert listener.tried[0].seconds == {1: store.trials[0].status.rungs[0].seconds}


def test_a_result_told_twice_is_refused() -> None:
    tuner = Tuner(study_spec())
    ask(tuner)
    tuner.tell(0, 1, 0.5)
    with pytest.raises(ValueError, match="trial 0 already has a result at rung 1"):
        tuner.tell(0, 1, 0.5)


def test_there_are_no_more_trials_than_the_limit() -> None:
    tuner = Tuner(study_spec(2))
    assert [ask(tuner).index, ask(tuner).index, tuner.ask(), tuner.ask()] == [0, 1, None, None]


def test_promotions_alone_can_be_asked_for() -> None:
    tuner = Tuner(study_spec())
    assert tuner.ask(new_trials=False) is None
    for value in (0.6, 0.44, 0.5):
        tuner.tell(ask(tuner).index, 1, value)
    leg = tuner.ask(new_trials=False)
    assert leg is not None
    assert (leg.index, leg.new) == (1, False)
    assert tuner.ask(new_trials=False) is None
    assert ask(tuner).index == 3


def test_a_raised_limit_takes_effect_at_once() -> None:
    tuner = Tuner(study_spec(1))
    assert (ask(tuner).index, tuner.ask()) == (0, None)
    tuner.spec = study_spec(2)
    assert (ask(tuner).index, tuner.ask()) == (1, None)


def test_promotions_go_on_when_the_limit_is_reached() -> None:
    tuner = Tuner(study_spec(3))
    for value in (0.3, 0.2, 0.1):
        tuner.tell(ask(tuner).index, 1, value) if value > 0.1 else ask(tuner)
    assert tuner.ask() is None
    tuner.tell(2, 1, 0.1)
    assert (ask(tuner).index, tuner.ask()) == (2, None)


def test_an_exhausted_search_space_ends_new_trials() -> None:
    tuner = Tuner(GRID)
    assert [ask(tuner).parameters for _ in range(7)] == [{"n": n} for n in range(1, 8)]
    assert (tuner.ask(), tuner.ask()) == (None, None)


def test_results_that_are_not_finite_stall_nothing() -> None:
    tuner = Tuner(study_spec(40))
    for index in range(40):
        assert ask(tuner).index == index
        tuner.tell(index, 1, math.nan)
    assert tuner.ask() is None


def test_a_withdrawn_trial_is_not_promoted() -> None:
    tuner = Tuner(study_spec(3))
    for value in (0.1, 0.2):
        tuner.tell(ask(tuner).index, 1, value)
    tuner.withdraw(0)
    ask(tuner)
    tuner.tell(2, 1, 0.3)
    assert tuner.ask() is None


def test_the_highest_budget_is_known() -> None:
    assert Tuner(study_spec()).max_budget == 9


# --- folding


def test_indices_go_on_after_the_highest_one_seen() -> None:
    assert ask(Tuner(study_spec(), [trial(7, 1, {}), trial(2, 1, {})])).index == 8


def test_a_stored_promotion_is_not_made_again() -> None:
    stored = [trial(0, 3, {1: 0.1}), trial(1, 1, {1: 0.2}), trial(2, 1, {1: 0.3})]
    assert ask(Tuner(study_spec(), stored)).new


def test_a_promotion_that_was_not_stored_is_made() -> None:
    stored = [trial(0, 1, {1: 0.1}, parameters={"lr": 0.5}), trial(1, 1, {1: 0.2}), trial(2, 1, {1: 0.3})]
    leg = ask(Tuner(study_spec(), stored))
    assert (leg.index, leg.budget, leg.parameters, leg.new) == (0, 3, {"lr": 0.5}, False)


@pytest.mark.parametrize("state", ["Failed", "Stopped"])
def test_a_failed_or_stopped_trial_counts_and_is_not_promoted(state: Literal["Failed", "Stopped"]) -> None:
    stored = [trial(0, 1, {1: 0.1}, state), trial(1, 1, {1: 0.2}), trial(2, 1, {1: 0.3})]
    assert ask(Tuner(study_spec(), stored)).new


def test_a_stored_result_at_no_rung_is_refused() -> None:
    with pytest.raises(ValueError, match="trial 0 has a result at budget 2, which is no rung"):
        Tuner(study_spec(), [trial(0, 3, {2: 0.1})])


# --- rebuilt at every step, it decides the same


@dataclass
class Store:
    """What is stored of a study's trials, and nothing else."""

    trials: dict[int, Trial] = field(default_factory=dict)

    def decide(self, leg: Leg) -> None:
        known = self.trials.get(leg.index)
        decided = lifecycle.promoted(known, leg.trial_spec()) if known else new_trial("study", leg.trial_spec())
        self.trials[leg.index] = lifecycle.started(decided)

    def result(self, index: int, value: float, seconds: float, order: int) -> None:
        trial = lifecycle.completed_rung(self.trials[index], value, seconds, 0.0, at=0.0, order=order)
        self.trials[index] = lifecycle.paused(trial, "paused")

    def report(self, index: int, report: Report, interval: int | None) -> None:
        self.trials[index] = lifecycle.reported(self.trials[index], report, "loss", interval)

    def end(self, index: int, state: TrialState, order: int) -> None:
        self.trials[index] = lifecycle.ended(self.trials[index], state, "over", order=order)


@dataclass(frozen=True)
class Step:
    """One thing that happens: a free slot, a report or a result of one that runs, or a failure of one that exists."""

    kind: Literal["ask", "report", "tell", "fail"]
    which: int
    value: float


values = st.sampled_from([0.0, 0.1, 0.2, 0.5, math.nan, math.inf, -math.inf]) | st.floats(-1, 1)
kinds = st.sampled_from(["ask", "ask", "ask", "report", "report", "report", "tell", "tell", "tell", "tell", "fail"])
histories = st.lists(st.builds(Step, kinds, st.integers(0, 1000), values), max_size=60)
FINITE = [{"name": "n", "int": {"min": 1, "max": 6}}, {"name": "kind", "choice": ["a", "b", "c"]}]
POINTS = [{"optimizer": "sgd", "lr": 0.01}, {"optimizer": "adamw"}]
specs = st.sampled_from(
    [
        study_spec(),
        study_spec(sampler={"sobol": {}}, initialPoints=POINTS),
        study_spec(None, sampler={"tpe": {}}, initialPoints=POINTS),
        study_spec(None, sampler={"auto": {}}, scheduler={"adaptive": {"maxBudget": 9}}, parameters=FINITE),
        study_spec(None, sampler={"tpe": {}}, objective={"metric": "accuracy", "goal": "maximize"}, seed=5),
        study_spec(None, sampler={"tpe": {}}, parameters=FINITE),
        study_spec(None, sampler={"random": {}}, parameters=FINITE),
        study_spec(None, sampler={"grid": {}}, parameters=FINITE, initialPoints=[{"kind": "b"}]),
        study_spec(5, objective={"metric": "accuracy", "goal": "maximize"}),
        study_spec(None, scheduler={"asha": {"minBudget": 2, "maxBudget": 11, "reductionFactor": 2}}, seed=-3),
        GRID,
        study_spec(scheduler={"asha": {"minBudget": 1, "maxBudget": 8, "reductionFactor": 2, "brackets": 3}}, seed=5),
        study_spec(scheduler={"asha": {"maxBudget": 8, "reductionFactor": 2, "brackets": 2, "control": 0.5}}, seed=2),
        study_spec(scheduler={"hyperband": {"minBudget": 1, "maxBudget": 4, "reductionFactor": 2}}),
        study_spec(7, scheduler={"hyperband": {"minBudget": 2, "maxBudget": 9, "reductionFactor": 2}}),
        study_spec(None, **{**SMALL_GRID, "scheduler": {"hyperband": {"maxBudget": 9}}}),
        study_spec(scheduler={"none": {"budget": 5}}),
        study_spec(scheduler={"asha": {"maxBudget": 9, "grace": 3, "brackets": 2}}, seed=1),
        study_spec(scheduler={"median": {"budget": 9, "trials": 1}}),
        study_spec(None, scheduler={"median": {"budget": 9, "trials": 2, "interval": 2}}, sampler={"tpe": {}}),
        study_spec(scheduler={"median": {"budget": 5, "grace": 2}}, objective={"metric": "a", "goal": "maximize"}),
        study_spec(scheduler={"patience": {"budget": 9, "patience": 2, "minDelta": 0.1}}),
        study_spec(None, scheduler={"patience": {"budget": 9, "patience": 3, "grace": 4}}, sampler={"tpe": {}}),
    ]
)


def take(step: Step, tuner: Tuner, store: Store) -> Leg | Answer | None:
    """Lets one thing happen to the tuner and the store alike; returns what the tuner said."""
    unfinished = [t.index for t in store.trials.values() if not t.finished]
    running = [t.index for t in store.trials.values() if t.assigned]
    if step.kind == "ask":
        leg = tuner.ask()
        if leg is not None:
            store.decide(leg)
        return leg
    if step.kind == "report" and running:
        index = running[step.which % len(running)]
        at = 1 + step.which % 8  # it may be repeated, and go back
        if at < store.trials[index].spec.budget:
            return report(tuner, store, index, Report(at, {"loss": step.value}))
    if step.kind == "tell" and running:
        index = running[step.which % len(running)]
        begins = 0 if store.trials[index].status.rungs else 9
        seconds = begins + (1 + step.which % 7) / 3
        answer = tuner.tell(index, store.trials[index].spec.budget, step.value, seconds)
        store.result(index, step.value, seconds, answer.order)
        return answer
    if step.kind == "fail" and unfinished:
        index = unfinished[step.which % len(unfinished)]
        store.end(index, "Failed", tuner.withdraw(index))
    return None


def report(tuner: Tuner, store: Store, index: int, report: Report) -> Answer:
    """Lets a trial report before its budget; where that ends it, it is stopped."""
    answer = tuner.tell(index, report.step, report.metrics["loss"])
    store.report(index, report, tuner.spec.scheduler.interval)
    if answer.stop:
        store.end(index, "Stopped", tuner.withdraw(index))
    return answer


def run(history: Iterable[Step], tuner: Tuner, store: Store) -> list[Leg | Answer | None]:
    return [take(step, tuner, store) for step in history]


@settings(max_examples=60, deadline=None)
@given(specs, histories, st.randoms(use_true_random=False))
def test_a_tuner_rebuilt_at_any_moment_goes_on_as_if_nothing_had_happened(
    spec: StudySpec, history: list[Step], shuffle: Any
) -> None:
    tuner, store, snapshots = Tuner(spec), Store(), []
    answers = []
    for step in history:
        snapshots.append(dict(store.trials))
        answers.append(take(step, tuner, store))
    for done, snapshot in enumerate(snapshots):
        stored = list(snapshot.values())
        shuffle.shuffle(stored)
        again = Store(dict(snapshot))
        assert answers[done:] == run(history[done:], Tuner(spec, stored), again)
        assert store.trials == again.trials


SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": {"asha": {"maxBudget": 9}},
    "brackets": {"asha": {"maxBudget": 9, "brackets": 2, "control": 0.3}},
    "hyperband": {"hyperband": {"maxBudget": 9}},
    "adaptive": {"adaptive": {"maxBudget": 9}},
    "median": {"median": {"budget": 9, "grace": 2, "trials": 3}},
    "patience": {"patience": {"budget": 9, "patience": 2}},
    "none": {"none": {"budget": 3}},
}
LEARNERS = {"tpe", "bohb", "gp", "auto"}


def loss(trial: Trial) -> float:
    """What there is to learn of a trial, and what there is not."""
    noise = np.random.default_rng([trial.index, trial.spec.budget])
    if noise.random() < 0.05:
        return math.nan
    parameters = trial.spec.parameters
    away = math.log10(float(parameters["lr"])) + 3 if "lr" in parameters else (float(parameters["n"]) - 4) / 3
    return away**2 + 1 / trial.spec.budget + 0.1 * float(noise.random())


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("sampler", ["random", "sobol", "grid", *sorted(LEARNERS)])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_sampler_with_every_scheduler_decides_the_same_when_rebuilt(
    scheduler: str, sampler: str, goal: str
) -> None:
    """The models among them included, and each has something to say."""
    grid = [{"name": "n", "int": {"min": 1, "max": 12}}, {"name": "kind", "choice": ["a", "b", "c"]}]
    axes, points = (grid, [{"kind": "b"}]) if sampler == "grid" else (AXES, POINTS)
    spec = study_spec(
        None,
        sampler={sampler: {}},
        scheduler=SCHEDULERS[scheduler],
        parameters=axes,
        initialPoints=points,
        objective={"metric": "loss", "goal": goal},
        seed=len(scheduler),
    )
    rng, sign = np.random.default_rng(len(sampler)), spec.objective.sign
    tuner, store = Tuner(spec), Store()
    decisions = list[str]()
    for number in range(120):
        stored = [store.trials[index] for index in rng.permutation([*store.trials])]
        rebuilt, again = Tuner(spec, stored), Store(dict(store.trials))
        running = [trial for trial in store.trials.values() if trial.assigned]
        which = int(rng.integers(1000))
        value = sign * loss(running[which % len(running)]) if running else 0.0
        kind = "fail" if number % 30 == 20 else rng.choice(["ask", "tell", "report"], p=[0.48, 0.44, 0.08])
        step = Step(kind, which, value)
        answer = take(step, tuner, store)
        assert answer == take(step, rebuilt, again)
        assert store.trials == again.trials
        decisions += [answer.decision] if isinstance(answer, Leg) else []
    assert "new trial: initialPoints[0]" in decisions
    assert any(why.startswith(f"new trial: {sampler} on ") for why in decisions) is (sampler in LEARNERS)
    assert any("final value expected" in why for why in decisions) is (scheduler == "adaptive")
    assert any(trial.status.state == "Failed" for trial in store.trials.values())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "scheduler",
    [
        {"median": {"budget": 9, "trials": 2}},
        {"median": {"budget": 9, "trials": 3, "interval": 2, "grace": 3}},
        {"patience": {"budget": 9, "patience": 2}},
        {"patience": {"budget": 9, "patience": 2, "minDelta": 0.2, "interval": 2}},
    ],
)
def test_a_tuner_rebuilt_before_every_report_stops_the_same_trials(scheduler: Any, seed: int) -> None:
    spec = study_spec(None, scheduler=scheduler)
    tuner, store, rng = Tuner(spec), Store(), np.random.default_rng(seed)
    stopped = 0
    for _ in range(300):
        kind = rng.choice(["ask", "report", "tell"], p=[0.1, 0.85, 0.05])
        step = Step(kind, int(rng.integers(1000)), float(rng.choice([math.nan, rng.random()], p=[0.1, 0.9])))
        stored = [store.trials[index] for index in rng.permutation([*store.trials])]
        rebuilt, again = Tuner(spec, stored), Store(dict(store.trials))
        answer = take(step, tuner, store)
        assert answer == take(step, rebuilt, again)
        assert store.trials == again.trials
        stopped += isinstance(answer, Answer) and answer.stop
    assert stopped > 5


@settings(max_examples=100, deadline=None)
@given(specs, histories)
def test_every_trial_ever_promoted_had_a_finite_value_and_had_not_failed(spec: StudySpec, history: list[Step]) -> None:
    tuner, store = Tuner(spec), Store()
    for step in history:
        before = dict(store.trials)
        answer = take(step, tuner, store)
        if isinstance(answer, Leg) and not answer.new:
            promoted = before[answer.index]
            assert promoted.status.rungs[-1].value is not None
            assert not promoted.finished
            assert not promoted.assigned

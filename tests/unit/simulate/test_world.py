"""Studies in the simulator: the decisions of a plain tuner, and an account of every second of every worker."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard.simulate.conditions import Conditions
from halvard.simulate.result import Simulation, Span
from halvard.simulate.table import Rows, Table
from halvard.study import Study
from halvard.tuner import Tuner
from unit.simulate.conftest import arrays, make_study
from unit.simulate.conftest import checked as simulate

TABLE = Table.from_arrays(arrays())
STUDIES = {
    "asha": make_study(),
    "maximize": make_study(objective={"metric": "gain", "goal": "maximize"}, seed=-3),
    "another ladder": make_study(scheduler={"asha": {"minBudget": 2, "maxBudget": 7, "reductionFactor": 2}}),
    "brackets": make_study(scheduler={"asha": {"maxBudget": 9, "brackets": 3}}),
    "hyperband": make_study(scheduler={"hyperband": {"maxBudget": 9}}),
    "none": make_study(scheduler={"none": {"budget": 9}}),
    "grace": make_study(scheduler={"asha": {"maxBudget": 9, "grace": 3}}),
    "median": make_study(scheduler={"median": {"budget": 9, "trials": 2}}),
    "patience": make_study(scheduler={"patience": {"budget": 9, "patience": 2, "minDelta": 0.015, "interval": 2}}),
    "tpe": make_study(sampler={"tpe": {}}, initialPoints=[{"lr": 0.1}]),
}
ROUGH = Conditions(5, start_up=20.0, stragglers=0.5, dropped=0.2, lost_every=3600.0, hot=False, checkpoints=False)


def spans(simulation: Simulation) -> Iterator[Span]:
    return (span for trial in simulation.trials for span in trial.spans)


def loop(study: Study) -> Iterator[tuple[int, int, str]]:
    """The decisions of a tuner in a plain loop: one leg at a time, on the same table."""
    tuner, rows, trained = Tuner(study.spec), Rows(TABLE), dict[int, int]()
    while leg := tuner.ask():
        yield leg.index, leg.budget, leg.decision
        if leg.new:
            trained[leg.index] = rows.take(TABLE.point(study.spec.parameters, leg.parameters))
        for step in range(leg.start + 1, leg.budget + 1):
            if tuner.tell(leg.index, step, float(TABLE.value[trained[leg.index], step - 1])).stop:
                tuner.withdraw(leg.index)
                break


# --- decisions


@pytest.mark.parametrize("name", STUDIES)
def test_one_worker_decides_as_a_plain_loop_around_the_tuner_does(name: str) -> None:
    simulation = simulate(STUDIES[name], TABLE, Conditions(1))
    assert [(d.trial, d.budget, d.why) for d in simulation.decisions] == list(loop(STUDIES[name]))
    assert simulation.best is not None


@pytest.mark.parametrize("rough", [{"start_up": 30.0}, {"hot": False}, {"checkpoints": False}, {"stragglers": 1.0}])
def test_what_only_costs_time_changes_no_decision_of_one_worker(rough: dict[str, Any]) -> None:
    easy, hard = (simulate(make_study(), TABLE, Conditions(1, **changes)) for changes in ({"start_up": 9.0}, rough))
    assert [(d.trial, d.budget) for d in hard.decisions] == [(d.trial, d.budget) for d in easy.decisions]
    assert hard.seconds != easy.seconds


@pytest.mark.parametrize("name", ["median", "patience"])
def test_a_trial_that_is_stopped_leaves_at_that_report_and_its_place_is_used_at_once(name: str) -> None:
    simulation = simulate(STUDIES[name], TABLE, Conditions(2))
    stopped = [trial for trial in simulation.trials if trial.trial.status.state == "Stopped"]
    assert len(stopped) > 5
    assert [span.step for trial in stopped for span in trial.spans] == [t.trial.status.curve[-1].step for t in stopped]
    assert simulation.busy()["paused"] == pytest.approx(sum(span.seconds for t in stopped for span in t.spans))
    assert sum(simulation.busy().values()) >= 2 * simulation.seconds - TABLE.seconds.sum(axis=1).max()


def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    first, again = (simulate(make_study(), TABLE, ROUGH) for _ in range(2))
    assert first == again
    assert simulate(make_study(), TABLE, replace(ROUGH, seed=1)).seconds != first.seconds


def test_the_results_are_those_of_the_table_and_nan_is_worst() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(4))
    told = {
        (trial.row, result.budget): result.value for trial in simulation.trials for result in trial.trial.status.rungs
    }
    in_table = {(row, budget): float(TABLE.value[row, budget - 1]) for row, budget in told}
    assert told == {place: value if math.isfinite(value) else None for place, value in in_table.items()}
    assert any(value is None for value in told.values())
    assert all(trial.trial.status.state != "Failed" for trial in simulation.trials)


def test_there_are_no_more_trials_than_rows() -> None:
    simulation = simulate(make_study(limits={"trials": 1000}), TABLE, Conditions(8))
    assert sorted(trial.row for trial in simulation.trials) == list(range(60))


def test_a_limit_of_time_holds_in_virtual_time() -> None:
    simulation = simulate(make_study(limits={"duration": "20m"}), TABLE, Conditions(3))
    assert simulation.seconds == 1200.0
    assert [c.reason for c in simulation.study.status.conditions] == ["DurationReached"]
    assert sum(simulation.busy().values()) == pytest.approx(3 * 1200.0)


# --- time


def test_one_leg_takes_a_start_up_and_its_steps() -> None:
    simulation = simulate(make_study(limits={"trials": 1}), TABLE, Conditions(1, start_up=7.0))
    [trial] = simulation.trials
    assert simulation.seconds == pytest.approx(7.0 + TABLE.seconds[trial.row, 0])
    assert simulation.busy() == pytest.approx(
        {"promoted": 0.0, "complete": 0.0, "paused": simulation.seconds, "failed": 0.0, "lost": 0.0}
    )


def test_every_pod_starts_up_once() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(3, start_up=50.0))
    steps = sum(TABLE.seconds[t.row, span.start : span.step].sum() for t in simulation.trials for span in t.spans)
    pods = {(span.trial, span.attempt) for span in spans(simulation)}
    assert sum(simulation.busy().values()) == pytest.approx(steps + 50.0 * len(pods))


def test_a_hot_promotion_needs_no_new_pod() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(1))
    hot = [decision for decision in simulation.decisions if decision.hot]
    pods = {(span.trial, span.attempt) for span in spans(simulation)}
    assert hot
    assert len(pods) == len(simulation.decisions) - len(hot)


def test_without_hot_promotions_every_leg_has_a_pod_of_its_own() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(4, hot=False))
    pods = {(span.trial, span.attempt) for span in spans(simulation)}
    assert not any(decision.hot for decision in simulation.decisions)
    assert len(pods) == len(simulation.decisions)


def test_a_promoted_trial_goes_on_from_its_checkpoint_or_starts_over() -> None:
    later = {
        checkpoints: {
            span.start
            for span in spans(simulate(make_study(), TABLE, Conditions(4, hot=False, checkpoints=checkpoints)))
            if span.attempt > 1
        }
        for checkpoints in (True, False)
    }
    assert later == {True: {1, 3}, False: {0}}


def test_dropped_legs_run_again_and_their_time_is_lost() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(4, dropped=0.3))
    again = [span for span in spans(simulation) if span.budget is None]
    assert len(again) > 5
    assert simulation.busy()["lost"] == pytest.approx(sum(span.seconds for span in again))
    assert simulation.study.status.trials.total == 40
    assert all(trial.trial.status.rungs for trial in simulation.trials)


def test_a_lost_worker_is_missed_until_it_is_replaced() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(2, lost_every=600.0, away=100.0))
    lost = [span for span in spans(simulation) if span.budget is None]
    assert len(lost) > 1
    assert min(span.seconds for span in lost) >= 100.0
    assert all(trial.trial.status.rungs for trial in simulation.trials)


def test_a_leg_that_can_never_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="was lost 1000 times: under these conditions it never ends"):
        simulate(make_study(), TABLE, Conditions(1, start_up=1e5, lost_every=10.0, away=0.0))


@pytest.mark.parametrize("rough", [{"start_up": 1e12}, {"stragglers": 1000.0}, {"stragglers": 20.0}])
def test_a_study_that_would_last_for_ages_is_an_error(rough: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="lasts longer than 1e\\+11 s: the table's seconds, full-training, start-up"):
        simulate(make_study(), TABLE, Conditions(1, **rough))


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        Conditions,
        workers=st.integers(1, 20),
        start_up=st.sampled_from([0.0, 30.0]),
        stragglers=st.sampled_from([0.0, 1.0]),
        dropped=st.sampled_from([0.0, 0.3]),
        lost_every=st.sampled_from([math.inf, 2000.0]),
        away=st.sampled_from([0.0, 340.0]),
        checkpoints=st.booleans(),
        hot=st.booleans(),
        seed=st.integers(0, 99),
    ),
    st.sampled_from(sorted(STUDIES)),
)
def test_no_worker_serves_two_at_a_time_and_every_second_has_an_outcome(conditions: Conditions, name: str) -> None:
    simulation = simulate(STUDIES[name], TABLE, conditions)
    by_worker = sorted((span.worker, span.began, span.ended) for span in spans(simulation))
    assert all(began >= ended for (w, _, ended), (v, began, _) in pairwise(by_worker) if w == v)
    assert {worker for worker, _, _ in by_worker} <= set(range(conditions.workers))
    assert all(0 <= began <= ended <= simulation.seconds for _, began, ended in by_worker)
    assert sum(simulation.busy().values()) == pytest.approx(sum(span.seconds for span in spans(simulation)))
    assert len({trial.row for trial in simulation.trials}) == len(simulation.trials)
    assert simulation.study.status.trials.complete >= 1


# --- how good it was by then


@pytest.mark.parametrize("name", STUDIES)
def test_improvements_lead_to_the_best_that_finished(name: str) -> None:
    simulation = simulate(STUDIES[name], TABLE, Conditions(4))
    maximize = STUDIES[name].spec.objective.goal == "maximize"
    values = [improvement.value for improvement in simulation.improvements]
    finished = [
        result.value
        for trial in simulation.trials
        for result in trial.trial.status.rungs
        if result.budget == simulation.budgets[-1] and result.value is not None
    ]
    assert values == sorted(set(values), reverse=not maximize)
    best = simulation.study.status.best
    assert best
    assert values[-1] == best.value
    assert best.value == (max(finished) if maximize else min(finished)) or name == "patience"


def test_what_patience_stopped_had_finished_as_the_status_has_it() -> None:
    study = make_study(scheduler={"patience": {"budget": 9, "patience": 1, "minDelta": 0.05}})
    simulation = simulate(study, TABLE, Conditions(1))
    best = simulation.study.status.best
    assert simulation.study.status.trials.complete == 0
    assert best
    assert simulation.best
    assert (simulation.best.value, f"s-{simulation.best.trial:04d}") == (best.value, best.trial)
    [last] = next(trial.spans for trial in simulation.trials if trial.trial.index == simulation.best.trial)
    assert (simulation.best.at, simulation.best.busy) == pytest.approx((last.ended, last.ended))


def test_regret_is_how_far_a_value_is_from_the_tables_best() -> None:
    simulation = simulate(make_study(limits={"trials": 60}), TABLE, Conditions(4))
    assert all(i.regret == pytest.approx(i.value - TABLE.best("minimize", 9)) for i in simulation.improvements)
    assert all(earlier.busy < later.busy for earlier, later in pairwise(simulation.improvements))


def test_a_value_is_reached_by_the_first_that_is_as_good() -> None:
    simulation = simulate(make_study(), TABLE, Conditions(4))
    assert simulation.reached(math.inf) == simulation.improvements[0]
    assert simulation.reached(simulation.improvements[-1].value) == simulation.best
    assert simulation.reached(-math.inf) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": 0}, "workers is 0: it must be at least 1"),
        ({"start_up": -1.0}, "start_up is -1.0: it must be at least 0 seconds"),
        ({"stragglers": math.nan}, "stragglers is nan: it must be at least 0"),
        ({"dropped": 1.0}, "dropped is 1.0: it must be at least 0 and below 1"),
        ({"lost_every": 0.0}, "lost_every is 0.0: it must be more than 0 seconds"),
        ({"away": math.inf}, "away is inf: it must be at least 0 seconds"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="it must be") as refused:
        Conditions(**{"workers": 1, **wrong})
    assert str(refused.value) == message

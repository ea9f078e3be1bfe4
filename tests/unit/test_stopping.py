"""Schedulers that stop a trial at a report: what they say, and the rules held against their definitions."""

import math
import statistics
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from halvard import scheduler_spec
from halvard.schedulers.median import Median
from halvard.schedulers.patience import Patience
from halvard.schedulers.stopping import Stopping
from halvard.study import Goal
from halvard.trial import CurvePoint, RungResult, Trial, TrialSpec, TrialStatus
from unit.reference.stopping import Course, median_stops, patience_stops
from unit.streams import VALUES

NAN, INF = math.nan, math.inf
NOT_FINITE = [NAN, INF, -INF, None]


def median(goal: Goal = "minimize", **changes: Any) -> Median:
    return Median(scheduler_spec.Median.model_validate({"budget": 20, "trials": 2, **changes}), goal)


def patience(goal: Goal = "minimize", **changes: Any) -> Patience:
    return Patience(scheduler_spec.Patience.model_validate({"budget": 20, "patience": 3, **changes}), goal)


def tell(scheduler: Stopping, index: int, reports: Mapping[int, float | None]) -> dict[int, str]:
    """By step, why the trial is to stop at these reports."""
    answers = {step: scheduler.report(index, step, value) for step, value in reports.items()}
    return {step: why for step, why in answers.items() if why is not None}


def course(*values: float | None) -> dict[int, float | None]:
    """One report a step."""
    return dict(enumerate(values, 1))


# --- median


def test_a_trial_is_stopped_where_its_best_is_worse_than_the_median_of_the_averages_and_is_told_why() -> None:
    scheduler = median(trials=3)
    for index, values in enumerate([(0.9, 0.7), (0.6, 0.4), (0.8, 0.2)]):  # averages 0.8, 0.5 and 0.5
        assert tell(scheduler, index, course(*values)) == {}
    assert tell(scheduler, 3, course(0.8, 0.6)) == {
        2: "the best value by step 2, 0.6, is worse than 0.5, the median of the averages of 3 other trials up to there"
    }


def test_its_best_value_counts_and_not_its_last() -> None:
    scheduler = median()
    tell(scheduler, 0, course(0.5, 0.5, 0.5))
    tell(scheduler, 1, course(0.5, 0.5, 0.5))
    assert tell(scheduler, 2, course(0.4, 0.9, 0.9)) == {}


def test_fewer_others_than_asked_for_stop_nothing() -> None:
    scheduler = median(trials=3)
    for index in (0, 1):
        tell(scheduler, index, course(0.1, 0.1))
    assert tell(scheduler, 2, course(0.9, 0.9)) == {}
    assert [*tell(scheduler, 3, course(0.9))] == [1]


def test_only_trials_that_came_as_far_count() -> None:
    scheduler = median()
    tell(scheduler, 0, course(0.1, 0.1))
    tell(scheduler, 1, course(0.1))
    assert tell(scheduler, 2, {2: 0.9}) == {}  # one other came to step 2
    assert [*tell(scheduler, 3, {1: 0.9})] == [1]


def test_a_trial_that_skipped_a_step_came_past_it_with_the_average_it_had() -> None:
    scheduler = median()
    for index in (0, 1):
        tell(scheduler, index, {1: 0.2, 5: 0.0})
    assert "is worse than 0.2, the median of the averages of 2" in tell(scheduler, 2, {3: 0.3})[3]
    assert "is worse than 0.1, the median" in tell(scheduler, 3, {5: 0.3})[5]


def test_a_trial_whose_first_report_came_later_has_no_average_before() -> None:
    scheduler = median()
    for index in (0, 1):
        tell(scheduler, index, {5: 0.1})
    assert tell(scheduler, 2, {4: 0.9}) == {}
    assert [*tell(scheduler, 2, {6: 0.9, 5: 0.9})] == []  # nobody came to 6, and 5 is a step back by then


def test_a_trial_that_finished_came_past_all_steps() -> None:
    scheduler = median()
    for index in (0, 1):
        tell(scheduler, index, {2: 0.1})
        scheduler.record(index, 20, 0.05)
    assert "is worse than 0.1" in tell(scheduler, 2, {19: 0.9})[19]


def test_a_trial_that_reported_nothing_but_its_result_has_no_average() -> None:
    scheduler = median()
    for index in (0, 1):
        scheduler.record(index, 20, 0.05)
    assert tell(scheduler, 2, {1: 0.9, 19: 0.9}) == {}


def test_the_median_of_an_even_number_is_halfway_between_the_middle_two() -> None:
    def last(value: float) -> dict[int, str]:
        scheduler = median(trials=4)
        for index, other in enumerate([0.1, 0.25, 0.5, 0.8]):
            tell(scheduler, index, course(other))
        return tell(scheduler, 4, course(value))

    assert last(0.375) == {}
    assert "is worse than 0.375" in last(0.38)[1]


def test_halfway_between_the_largest_numbers_is_not_beyond_them() -> None:
    scheduler = median()
    for index, value in enumerate([-1.7e308, -1.6e308]):
        tell(scheduler, index, course(value))
    assert tell(scheduler, 2, course(-1.66e308)) == {}


# --- patience


def test_a_trial_is_stopped_after_as_long_without_an_improvement_and_is_told_why() -> None:
    assert tell(patience(), 0, course(0.9, 0.5, 0.6, 0.5, 0.51)) == {
        5: "no improvement on 0.5, the value at step 2, by step 5; patience is 3"
    }


def test_an_improvement_begins_the_time_anew() -> None:
    assert [*tell(patience(), 0, course(0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8))] == [7]


def test_an_improvement_is_more_than_min_delta_since_the_last_one() -> None:
    scheduler = patience(minDelta=0.25)
    assert tell(scheduler, 0, course(1.0, 0.875, 0.75, 0.625, 0.5, 0.375)) == {}  # small steps add up
    assert tell(patience(minDelta=0.25), 0, course(1.0, 0.75, 0.75, 0.75)) == {
        4: "no improvement by more than 0.25 on 1, the value at step 1, by step 4; patience is 3"
    }


def test_patience_is_in_units_of_the_budget_and_not_in_reports() -> None:
    assert [*tell(patience(), 0, {1: 0.5, 9: 0.5})] == [9]


def test_trials_are_not_compared_with_each_other() -> None:
    scheduler = patience()
    for index in range(5):
        tell(scheduler, index, course(0.1))
    assert tell(scheduler, 5, course(0.9, 0.8, 0.7, 0.6)) == {}


def test_a_trial_that_was_stopped_has_converged_to_its_best_value_unless_it_diverged() -> None:
    scheduler = patience("maximize", minDelta=0.1)
    assert [*tell(scheduler, 0, course(0.5, 0.55, 0.4, 0.45))] == [4]
    assert [*tell(scheduler, 1, course(0.5, 0.55, NAN, NAN))] == [4]
    tell(scheduler, 2, course(0.5, 0.5))
    assert [scheduler.converged(index) for index in range(4)] == [0.55, None, None, None]


def test_a_value_that_is_not_finite_is_no_improvement_and_until_the_first_the_time_runs_from_the_start() -> None:
    assert tell(patience(), 0, course(NAN, INF, None)) == {3: "no finite value by step 3; patience is 3"}
    assert [*tell(patience(), 0, course(NAN, 0.5, -INF, NAN, NAN))] == [5]
    assert tell(patience(), 0, {10: 0.5}) == {}  # late, and the first finite one


# --- both


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_trial_that_diverged_is_stopped_by_median_at_once_whatever_the_others_do(
    bad: float | None, goal: Goal
) -> None:
    assert tell(median(goal), 0, course(0.5, bad)) == {2: "the value at step 2 is not finite"}


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_an_average_over_a_value_that_is_not_finite_is_the_worst(bad: float | None, goal: Goal) -> None:
    scheduler = median(goal, trials=3)
    for index, values in enumerate([(bad, 0.5), (0.5, bad), (0.5, 0.5)]):
        tell(scheduler, index, course(*values))
    assert tell(scheduler, 3, {2: 1e9 if goal == "minimize" else -1e9}) == {}  # two of three are the worst
    tell(scheduler, 4, course(0.5, 0.5))
    tell(scheduler, 5, course(0.5, 0.5))
    assert [*tell(scheduler, 6, {2: 1e9 if goal == "minimize" else -1e9})] == [2]


@pytest.mark.parametrize("scheduler", [median(grace=5), patience(grace=5)])
def test_nothing_is_stopped_before_grace_but_what_is_reported_there_counts(scheduler: Stopping) -> None:
    for index in (0, 1):
        tell(scheduler, index, course(*[0.1] * 4))
        scheduler.record(index, 20, 0.1)
    assert [*tell(scheduler, 2, course(0.9, NAN, NAN, 0.9, 0.9))] == [5]


@pytest.mark.parametrize("make", [median, patience])
def test_reports_between_intervals_count_for_nothing(make: Any) -> None:
    assert tell(make(interval=4), 0, {1: NAN, 2: NAN, 3: NAN, 4: 0.5, 5: NAN, 6: NAN, 7: NAN}) == {}


@pytest.mark.parametrize("make", [median, patience])
def test_a_report_that_is_repeated_or_goes_back_changes_nothing(make: Any) -> None:
    for again in (2, 3):
        scheduler, undisturbed = make(), make()
        reports = [(index, step, (index + 3) / step) for index in range(4) for step in (1, 2, 3)]
        for index, step, value in reports:
            assert scheduler.report(index, step, value) == undisturbed.report(index, step, value)
            if step == 3:
                assert scheduler.report(index, again, NAN) is None
        late = [(index, step, 1.0) for step in range(4, 9) for index in range(4)]
        assert [scheduler.report(*each) for each in late] == [undisturbed.report(*each) for each in late]


@pytest.mark.parametrize("make", [median, patience])
def test_a_result_says_where_it_stands_and_is_not_taken_twice(make: Any) -> None:
    scheduler = make()
    scheduler.record(0, 20, 0.5)
    scheduler.record(1, 20, 0.4)
    assert scheduler.explain(0, 20) == "value 0.5 is place 2 of 2 at rung 20, the highest"
    assert scheduler.promote() is None
    with pytest.raises(ValueError, match="trial 1 already has a result at rung 20"):
        scheduler.record(1, 20, 0.3)
    with pytest.raises(ValueError, match="trial 1 has a result at budget 9, which is no rung"):
        scheduler.record(1, 9, 0.3)


# --- held against the definitions


def play(seed: int, kind: str, goal: Goal) -> int:
    """One random history of reports, which skip steps and go back; returns how many decisions were as defined."""
    rng = np.random.default_rng(seed)
    budget, interval = int(rng.integers(2, 15)), int(rng.integers(1, 4))
    grace, needed = int(rng.integers(1, budget + 1)), int(rng.integers(1, 5))
    waits, delta = int(rng.integers(1, 6)), float(rng.choice([0.0, 0.5]))
    fields = {"budget": budget, "interval": interval, "grace": grace}
    scheduler: Stopping = (
        median(goal, **fields, trials=needed)
        if kind == "median"
        else patience(goal, **fields, patience=waits, minDelta=delta)
    )
    sign = 1 if goal == "minimize" else -1
    draw = list(VALUES.values())[seed % len(VALUES)]
    courses: list[dict[int, float]] = [{} for _ in range(7)]
    at, came_to = [0] * 7, [0] * 7
    over: set[int] = set()
    compared = 0
    for number in range(80):
        index = int(rng.integers(7))
        if index in over:
            continue
        step = max(1, at[index] + int(rng.choice([-1, 0, 1, 1, 1, 2, 4])))
        value = draw(rng, number)
        if step >= budget:
            scheduler.record(index, budget, value)
            came_to[index] = budget
            over.add(index)
            continue
        why = scheduler.report(index, step, value)
        if step % interval or step <= came_to[index]:
            assert why is None
            at[index] = max(at[index], step)
            continue
        at[index] = came_to[index] = step
        courses[index][step] = sign * value if math.isfinite(value) else INF
        others: list[tuple[int, Course]] = [(came_to[i], courses[i]) for i in range(7) if i != index]
        stops = (
            median_stops(courses[index], others, needed)
            if kind == "median"
            else patience_stops(courses[index], waits, delta)
        )
        assert (why is not None) == (stops and step >= grace)
        compared += 1
        if why is not None:
            over.add(index)
    return compared


@pytest.mark.parametrize("kind", ["median", "patience"])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_it_decides_as_defined_in_random_histories(kind: str, goal: Goal) -> None:
    assert sum(play(seed, kind, goal) for seed in range(1000)) > 10_000


# --- the battery: what tuners of the field get wrong


def stream(scheduler: Stopping, values: Iterable[float | None], steps: int = 5) -> list[int]:
    """Which trials are stopped that report these values, `steps` each, one trial after the other."""
    values = list(values)
    stopped = []
    for index in range(len(values) // steps):
        for step in range(1, steps + 1):
            if scheduler.report(index, step, values[index * steps + step - 1]) is not None:
                stopped.append(index)
                break
    return stopped


@pytest.mark.parametrize("value", [0.5, 0.1, 0.7, 1 / 3, -2.3, 1e300, 5e-324, 0.0])
def test_of_ties_all_survive(value: float) -> None:
    """Though sums of equal numbers, divided by how many there are, are not always that number again."""
    assert stream(median(), [value] * 1500, steps=15) == []


def test_zero_and_minus_zero_are_a_tie() -> None:
    assert stream(median(), [0.0, -0.0] * 50, steps=1) == []
    assert [*tell(patience(), 0, course(0.0, -0.0, 0.0, -0.0))] == [4]


@pytest.mark.parametrize("levels", [2, 3, 10])
def test_with_few_levels_exactly_those_worse_than_the_median_are_stopped(levels: int) -> None:
    values = [float(v) for v in np.random.default_rng(1).integers(levels, size=300)]
    worse = [i for i in range(2, 300) if values[i] > statistics.median(values[:i])]
    assert stream(median(), values, steps=1) == worse


def test_of_independent_values_half_are_stopped() -> None:
    values = np.random.default_rng(2).normal(size=1000).tolist()
    assert 450 <= len(stream(median(), values, steps=1)) <= 550


def test_in_an_improving_stream_nobody_is_stopped_and_in_a_worsening_one_all_are() -> None:
    values = [float(i) for i in range(300)]
    assert stream(median(), [-value for value in values], steps=1) == []
    assert stream(median(), values, steps=1) == [*range(2, 300)]
    assert stream(patience(), [-value for value in values]) == []
    assert stream(patience(), values) == [*range(60)]


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("share", [0.25, 0.75])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_whatever_the_share_of_values_that_are_not_finite_they_are_stopped_and_the_best_is_not(
    bad: float | None, share: float, goal: Goal
) -> None:
    rng = np.random.default_rng(4)
    values = [bad if rng.random() < share else float(rng.normal()) for _ in range(400)]
    stopped = stream(median(goal), values, steps=1)
    finite = {index: value for index, value in enumerate(values) if value is not None and math.isfinite(value)}
    assert {*range(400)} - {*finite} <= {*stopped}
    best = (min if goal == "minimize" else max)(finite, key=lambda index: finite[index])
    assert best not in stopped


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("make", [median, patience])
def test_minimising_and_maximising_are_exact_mirrors(kind: str, make: Any) -> None:
    rng = np.random.default_rng(5)
    values = [VALUES[kind](rng, step) for step in range(400)]
    assert stream(make(), values) == stream(make("maximize"), [-value for value in values])


# --- folding


@pytest.mark.parametrize("make", [median, patience])
@pytest.mark.parametrize("seed", range(20))
def test_a_scheduler_folded_from_stored_trials_decides_the_same_in_whatever_order_they_come(
    make: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scheduler = make()
    curves: list[dict[int, float]] = [{1: -9.0}, {}, {}, {}, {}]
    scheduler.report(0, 1, -9.0)
    for _ in range(60):
        index = int(rng.integers(1, 5))
        step = max(curves[index], default=0) + int(rng.integers(1, 3))
        if step < 20:
            curves[index][step] = float(rng.choice([NAN, rng.integers(3), rng.normal()]))
            scheduler.report(index, step, curves[index][step])
    scheduler.record(0, 20, 0.5)
    again = make()
    for index in rng.permutation(5):
        again.fold(stored(int(index), curves[index], finished=index == 0))
    late = [(index, step, float(rng.normal())) for step in range(1, 20) for index in range(1, 7)]
    assert [scheduler.report(*each) for each in late] == [again.report(*each) for each in late]


def stored(index: int, curve: Mapping[int, float], *, finished: bool) -> Trial:
    points = [CurvePoint(step, value if math.isfinite(value) else None) for step, value in curve.items()]
    result = RungResult(budget=20, value=0.5, step=20, seconds=1, at=datetime(2026, 1, 1, tzinfo=UTC))
    if finished:
        points.append(CurvePoint(20, 0.5))
    status = TrialStatus(state="Running", curve=tuple(points), rungs=(result,) if finished else ())
    return Trial(name=f"s-{index}", spec=TrialSpec(index=index, budget=20, parameters={}), status=status)

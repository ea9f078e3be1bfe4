"""Whether early results foretell later ones: what the status says of it, and when it raises the alarm."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard.diagnosis import CATCH_UP, ENOUGH, FEWEST, MISLEAD, MOST, Diagnosis, by_chance
from halvard.study import StudySpec
from halvard.trial import RungResult, Trial, TrialSpec, TrialStatus

BUDGETS = (1, 3, 9)
Values = Sequence[float | None]


def spec(goal: str = "minimize", **asha: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": goal},
            "parameters": [{"name": "x", "float": {"min": 0.0, "max": 1.0}}],
            "scheduler": {"asha": {"maxBudget": 9} | asha},
            "limits": {"trials": 9},
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def trial(index: int, values: Values, *, first: int = 0, control: bool = False) -> Trial:
    """A trial with these values, one a rung from rung number `first` on; `control`: drawn for its last one."""
    budgets = BUDGETS[first : first + len(values)]
    results = tuple(
        RungResult(
            budget=budget,
            value=value,
            step=budget,
            seconds=1.0,
            at=datetime(2026, 1, 1, tzinfo=UTC),
            control=control and budget == budgets[-1],
        )
        for budget, value in zip(budgets, values, strict=True)
    )
    leg = TrialSpec(index=index, budget=budgets[-1], parameters={"x": 0.5})
    return Trial(name=f"s-{index}", spec=leg, status=TrialStatus(state="Paused", rungs=results))


def trials(values: Iterable[Values]) -> list[Trial]:
    return [trial(index, each) for index, each in enumerate(values)]


def diagnosis(trials: Iterable[Trial], goal: str = "minimize", **asha: Any) -> Diagnosis:
    return Diagnosis(spec(goal, **asha), BUDGETS, trials)


def halved(count: int, noise: float, seed: int = 0) -> list[Values]:
    """Successive halving where the value at budget 3 is that at 1 with noise: the best third goes on."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal(count)
    second = first + noise * rng.standard_normal(count)
    cut = np.sort(first)[count // 3]
    return [(a, b) if a < cut else (a,) for a, b in zip(first.tolist(), second.tolist(), strict=True)]


# --- agreement


def test_a_rung_is_compared_with_the_next_one_and_with_the_top() -> None:
    of_three = [(float(i), float(-i), float(i)) for i in range(FEWEST)]
    of_two = [(float(i), float(-i)) for i in range(FEWEST, 15)]
    told = diagnosis(trials([*of_three, *of_two]))

    assert [(a.budget, a.trials, a.tau) for a in told.agreement(1)] == [(3, 15, -1.0), (9, FEWEST, 1.0)]
    assert [(a.budget, a.trials, a.tau) for a in told.agreement(3)] == [(9, FEWEST, -1.0)]
    assert told.agreement(9) == ()


def test_the_top_is_the_highest_rung_with_enough_trials_in_common() -> None:
    few_at_the_top: list[Values] = [(float(i), float(i), float(i)) for i in range(FEWEST - 1)]
    told = diagnosis(trials([*few_at_the_top, (20.0, 20.0)]))
    assert [a.budget for a in told.agreement(1)] == [3]
    assert told.agreement(3) == ()


def test_too_few_trials_in_common_are_not_compared() -> None:
    assert diagnosis(trials([(float(i), float(i)) for i in range(FEWEST - 1)])).agreement(1) == ()


def test_trials_that_are_all_equal_are_not_compared() -> None:
    assert diagnosis(trials([(1.0, float(i)) for i in range(FEWEST)])).agreement(1) == ()


def test_only_trials_with_finite_results_at_both_count() -> None:
    others: list[Values] = [(None,), (1.0, None), (2.0,)]
    [agreement] = diagnosis(trials([*[(float(i), float(i)) for i in range(FEWEST)], *others])).agreement(1)
    assert agreement.trials == FEWEST


def test_the_better_half_is_that_by_the_value_at_the_higher_rung() -> None:
    good = [(float(-i), float(i)) for i in range(10)]
    bad = [(float(i), float(i)) for i in range(10, 20)]
    [agreement] = diagnosis(trials([*good, *bad])).agreement(1)
    assert agreement.better is not None
    assert (agreement.better.trials, agreement.better.tau) == (10, -1.0)
    assert agreement.tau > 0

    [agreement] = diagnosis(trials([*good, *bad[:-1]])).agreement(1)
    assert agreement.better is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=20, max_size=40), st.randoms())
def test_it_neither_depends_on_the_order_of_trials_nor_on_the_goal(pairs: list[tuple[int, int]], random: Any) -> None:
    pairs = [*pairs, (10, 0), (11, 1)]
    values = [(float(a), float(b)) for a, b in pairs]
    told = diagnosis(trials(values))
    shuffled = trials(values)
    random.shuffle(shuffled)
    turned = diagnosis(trials([(-a, -b) for a, b in values]), "maximize")

    assert told.agreement(1) == diagnosis(shuffled).agreement(1) == turned.agreement(1)
    assert told.alarm(raised=True) == diagnosis(shuffled).alarm(raised=True) == turned.alarm(raised=True)


def test_of_many_trials_a_sample_is_compared_that_new_ones_hardly_change() -> None:
    values = halved(9 * MOST, noise=1.0)
    [all_of_them] = diagnosis(trials(values)).agreement(1)
    [before] = diagnosis(trials(values[:-30])).agreement(1)
    assert all_of_them.trials == 3 * MOST
    assert all_of_them.high - all_of_them.low == pytest.approx(0.12, abs=0.03)  # what so many trials give
    assert all_of_them.tau == pytest.approx(before.tau, abs=0.01)


# --- the alarm


def test_the_alarm_is_raised_where_early_results_foretell_little() -> None:
    reason, why = diagnosis(trials(halved(900, noise=1.5))).alarm(raised=False) or ("", "")
    assert reason == MISLEAD
    assert why.startswith("of two trials, the better one at budget 1 is still the better one at budget 3 in 6")
    assert "below 83%" in why
    assert why.endswith("minBudget 3 or more, a lower reductionFactor, grace 3 or more brackets")


@pytest.mark.parametrize("raised", [True, False])
def test_it_is_silent_where_early_results_foretell_much(raised: bool) -> None:  # noqa: FBT001  # a table of cases
    assert diagnosis(trials(halved(900, noise=0.2))).alarm(raised=raised) is None


def test_that_only_the_best_train_on_is_allowed_for() -> None:
    """Among the best third, tau is below the limit, and over all trials above it."""
    told = diagnosis(trials(halved(900, noise=0.4)))
    assert told.agreement(1)[0].high < 2 / 3
    assert told.alarm(raised=True) is None


def test_a_doubtful_case_raises_no_alarm_and_ends_none() -> None:
    told = diagnosis(trials(halved(100, noise=0.7)))
    assert told.alarm(raised=False) is None
    assert told.alarm(raised=True) is not None


def test_too_few_trials_are_no_case() -> None:
    values = [(float(i), float(-i)) for i in range(ENOUGH - 1)]
    assert diagnosis(trials(values)).alarm(raised=True) is None
    assert diagnosis(trials([*values, (30.0, -30.0)])).alarm(raised=False) is not None


def test_where_nobody_is_stopped_nobody_is_lost() -> None:
    values = [(float(i), float(-i)) for i in range(ENOUGH)]
    assert diagnosis(trials(values)).alarm(raised=True) is not None
    assert diagnosis(trials(values), grace=3).alarm(raised=True) is None


def test_above_the_grace_trials_are_judged_that_it_let_through() -> None:
    values = [(float(i), float(i), float(-i)) for i in range(ENOUGH)]
    assert diagnosis(trials(values)).alarm(raised=True) is None
    reason, why = diagnosis(trials(values), grace=3).alarm(raised=False) or ("", "")
    assert (reason, "better one at budget 3" in why) == (MISLEAD, True)


def test_trials_that_were_selected_before_are_no_case() -> None:
    """All of them are alike by then: their order at budgets 3 and 9 is left to chance."""
    values = [(float(i), 0.001 * i, -0.001 * i) for i in range(ENOUGH)]
    assert diagnosis(trials(values)).alarm(raised=True) is None


def test_the_first_rung_of_a_later_bracket_is_judged_too() -> None:
    later = [trial(index, (float(index), float(-index)), first=1) for index in range(ENOUGH)]
    why = (diagnosis(later, brackets=2).alarm(raised=False) or ("", ""))[1]
    assert "better one at budget 3" in why
    assert why.endswith("For the next study: the scheduler none, a lower reductionFactor, grace 9 or more brackets")


def with_controls(better: int, worse: int) -> list[Trial]:
    due = [trial(index, (float(index), float(index))) for index in range(11)]  # their median at budget 3 is 5
    values = [4.0] * better + [5.0] * worse
    controls = [trial(100 + index, (50.0 + index, value), control=True) for index, value in enumerate(values)]
    return [*due, *controls]


def test_controls_that_do_as_well_as_those_that_were_due_raise_the_alarm() -> None:
    reason, why = diagnosis(with_controls(better=4, worse=1), control=0.1).alarm(raised=False) or ("", "")
    assert reason == CATCH_UP
    assert why.startswith("4 of 5 control trials, drawn at random from those not due at budget 1, beat the median")


def test_one_control_that_beats_the_median_is_no_alarm() -> None:
    assert diagnosis(with_controls(better=1, worse=4), control=0.1).alarm(raised=True) is None


def test_some_controls_too_many_raise_no_alarm_and_end_none() -> None:
    told = diagnosis(with_controls(better=2, worse=3), control=0.1)
    assert told.alarm(raised=False) is None
    assert told.alarm(raised=True) is not None


def test_a_control_that_is_not_finite_beats_nobody() -> None:
    lost = [trial(200 + index, (60.0, None), control=True) for index in range(4)]
    assert diagnosis([*with_controls(better=2, worse=0), *lost], control=0.1).alarm(raised=False) is None


def test_chance_is_exact() -> None:
    assert by_chance(0, 7) == 1.0
    assert by_chance(2, 2) == pytest.approx(1 / 16)
    assert by_chance(1, 3) == pytest.approx(1 - (3 / 4) ** 3)
    assert 0 < by_chance(900, 2000) < 1e-30

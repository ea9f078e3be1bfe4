"""Where a study stands, as its status says it."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from halvard.progress import Progress
from halvard.status import MESSAGE_LENGTH, study_status
from halvard.study import Study
from halvard.study_status import Condition, RungStatus, StudyStatus
from halvard.trial import RungResult, Trial, TrialSpec, TrialState, TrialStatus

START = datetime(2026, 1, 1, tzinfo=UTC)


def study(status: StudyStatus | None = None, **spec: Any) -> Study:
    base: dict[str, Any] = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": [{"name": "x", "float": {"min": 0.0, "max": 1.0}}],
        "scheduler": {"asha": {"maxBudget": 9}},
        "limits": {"trials": 100_000},
        "template": {"spec": {"containers": [{"name": "trainer"}]}},
    }
    return Study.model_validate({"name": "s", "spec": base | spec, "status": status or StudyStatus()})


def trial(
    index: int,
    *values: float | None,
    budget: int = 0,
    state: TrialState = "Paused",
    orders: Sequence[int] = (),
    decisions: Sequence[str] = (),
) -> Trial:
    """A trial with these values from budget 1 on; `orders` and `decisions` are those of its legs."""
    budgets = [3**rung for rung in range(len(values))]
    orders, decisions = orders or (0,) * 9, decisions or ("",) * 9
    results = tuple(
        RungResult(budget=b, value=v, step=b, seconds=1.0, at=START, decided=orders[leg], decision=decisions[leg])
        for leg, (b, v) in enumerate(zip(budgets, values, strict=True))
    )
    budget = budget or budgets[-1]
    legs = len(values) + (budget not in budgets)
    spec = TrialSpec(
        index=index, budget=budget, parameters={"x": 0.5}, order=orders[legs - 1], decision=decisions[legs - 1]
    )
    return Trial(name=f"s-{index:04}", spec=spec, status=TrialStatus(state=state, rungs=results))


def status(trials: Iterable[Trial], of: Study | None = None) -> StudyStatus:
    return study_status(Progress(of or study(), trials), START.timestamp())


def test_a_rung_counts_what_is_not_finite_and_what_failed_on_the_way_to_it() -> None:
    lower, middle, upper = status(
        [
            trial(0, None),
            trial(1, 0.5),
            trial(2, 0.4, None),
            trial(3, 0.3, budget=3, state="Failed"),
            trial(4, budget=1, state="Failed"),
            trial(5, 0.2, budget=3, state="Running"),
            trial(6, budget=1, state="Stopped"),
        ]
    ).rungs
    assert lower == RungStatus(budget=1, completed=5, promoted=3, not_finite=1, failed=1)
    assert middle == RungStatus(budget=3, completed=1, running=1, not_finite=1, failed=1)
    assert upper == RungStatus(budget=9)


def test_the_search_is_told_by_the_latest_new_trial_and_the_latest_promotion() -> None:
    trials = [
        trial(0, 0.5, 0.4, 0.3, orders=(1, 4, 9), decisions=("random", "promoted: first", "as asha: no model")),
        trial(1, 0.6, 0.5, orders=(2, 7), decisions=("new trial: tpe", "promoted: second")),
        trial(2, 0.7, orders=(3,), decisions=("new trial: random, 4 of 10 results",)),
    ]
    search = status(trials).search
    assert (search.sampler, search.scheduler) == ("new trial: random, 4 of 10 results", "as asha: no model")


def test_a_decision_counts_from_when_it_is_made() -> None:
    trials = [
        trial(0, 0.5, budget=3, state="Running", orders=(1, 8), decisions=("random", "promoted: pending")),
        trial(1, 0.6, 0.5, orders=(2, 7), decisions=("random", "promoted: done")),
        trial(2, budget=1, state="Running", orders=(9,), decisions=("new trial: random, as tpe failed: ValueError",)),
    ]
    search = status(reversed(trials)).search
    assert search.sampler == "new trial: random, as tpe failed: ValueError"
    assert search.scheduler == "promoted: pending"


def test_a_search_without_decisions_has_no_words() -> None:
    assert status([]).search.model_dump() == {"sampler": "", "scheduler": ""}
    assert status([trial(0, budget=1)]).search.scheduler == ""


def test_long_words_are_cut() -> None:
    told = status([trial(0, budget=1, orders=(1,), decisions=("x" * 5000,))])
    assert len(told.search.sampler) == MESSAGE_LENGTH


def misled(count: int, noise: float) -> list[Trial]:
    rng = np.random.default_rng(1)
    first = rng.standard_normal(count)
    pairs = zip(first.tolist(), (first + noise * rng.standard_normal(count)).tolist(), strict=True)
    cut = np.sort(first)[count // 3]
    return [trial(index, a, b) if a < cut else trial(index, a) for index, (a, b) in enumerate(pairs)]


def late_bloomers(status: StudyStatus) -> Condition | None:
    return next((c for c in status.conditions if c.type == "LateBloomers"), None)


def test_the_alarm_is_a_condition_with_its_reason() -> None:
    condition = late_bloomers(status(misled(900, noise=1.5)))
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "EarlyResultsMislead")
    assert len(condition.message) < MESSAGE_LENGTH


def test_without_an_alarm_there_is_no_condition() -> None:
    assert late_bloomers(status(misled(900, noise=0.2))) is None


@pytest.mark.parametrize(("noise", "expected"), [(1.5, "True"), (0.2, "False")])
def test_an_alarm_that_was_raised_ends_where_more_results_end_it(noise: float, expected: str) -> None:
    before = status(misled(900, noise=1.5))
    later = study_status(Progress(study(before), misled(1800, noise)), START.timestamp() + 60)
    condition = late_bloomers(later)
    assert condition is not None
    assert condition.status == expected
    assert condition.last_transition_time.timestamp() - START.timestamp() == (0 if expected == "True" else 60)
    assert condition.reason == ("EarlyResultsMislead" if expected == "True" else "EarlyResultsForetell")


def test_the_longest_ladder_fits_into_the_study() -> None:
    rungs = 54
    ladder = study(scheduler={"asha": {"maxBudget": 2**53 - 1, "reductionFactor": 2, "control": 0.1}})
    results = [
        RungResult(budget=b, value=0.123456789, step=1, seconds=1.0, at=START) for b in Progress(ladder).tuner.budgets
    ]
    assert len(results) == rungs
    top = TrialSpec(index=0, budget=results[-1].budget, parameters={"x": 0.5})
    rng = np.random.default_rng(0)
    trials = [
        Trial(
            name=f"s-{index}",
            spec=top.model_copy(update={"index": index}),
            status=TrialStatus(
                state="Complete",
                rungs=tuple(r.model_copy(update={"value": float(rng.standard_normal())}) for r in results),
            ),
        )
        for index in range(40)
    ]
    told = status(trials, ladder)
    assert all(len(rung.agreement) == 2 for rung in told.rungs[:-2])
    assert len(json.dumps(told.model_dump(mode="json", by_alias=True, exclude_none=True))) < 32 * 1024

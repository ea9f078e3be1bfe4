"""ASHA held against the paper's pseudo-code and exact arithmetic."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from halvard import scheduler_spec
from halvard.ladder import bracket_sizes, rungs
from halvard.schedulers import make_scheduler
from halvard.schedulers.asha import Asha
from halvard.schedulers.rung import Standing
from halvard.study import Goal, StudySpec
from halvard.trial import Trial, TrialSpec
from unit.reference.asha import PaperAsha
from unit.streams import VALUES

NAN = math.nan
ETA = 3


def asha(
    min_budget: int = 1,
    max_budget: int = 81,
    eta: int = ETA,
    goal: Goal = "minimize",
    *,
    brackets: int = 1,
    seed: int = 0,
) -> Asha:
    spec = scheduler_spec.Asha(min_budget=min_budget, max_budget=max_budget, reduction_factor=eta, brackets=brackets)
    return Asha(spec, goal, seed)


def promotions(scheduler: Asha) -> list[int]:
    """The indices of everything that is due now, in order."""
    found = []
    while (promotion := scheduler.promote()) is not None:
        found.append(promotion.index)
    return found


def check_history(seed: int, goal: Goal, most_brackets: int = 1) -> int:
    """One random asynchronous history with failures; returns how many promotions it held against the paper."""
    rng = np.random.default_rng(seed)
    low, eta = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    ladder = rungs(low, low + int(rng.integers(40)), eta)
    ours = asha(low, ladder[-1], eta, goal, brackets=min(most_brackets, len(ladder)))
    papers = [PaperAsha(ladder[lowest:], eta) for lowest in range(most_brackets)]  # a competition for each bracket
    bracket: dict[int, int] = {}
    draw = list(VALUES.values())[seed % len(VALUES)]
    sign, workers = 1 if goal == "minimize" else -1, int(rng.integers(1, 9))
    running: list[tuple[int, int]] = []
    compared = 0
    for step in range(60):
        while len(running) < workers:
            promotion = ours.promote()
            if promotion is None:
                assert all(paper.get_job() is None for paper in papers)
                start = ours.start(len(bracket))
                running.append((len(bracket), start.budget))
                bracket[len(bracket)] = start.bracket
            else:
                assert papers[bracket[promotion.index]].get_job() == (promotion.index, promotion.budget)
                running.append((promotion.index, promotion.budget))
                compared += 1
        if rng.random() < 0.1:  # one fails, whether it runs or waits at a rung
            failed = int(rng.integers(len(bracket)))
            papers[bracket[failed]].failed.add(failed)
            ours.withdraw(failed)
            running = [job for job in running if job[0] != failed]
            continue
        index, budget = running.pop(int(rng.integers(len(running))))
        loss = draw(rng, step)
        papers[bracket[index]].record(index, budget, loss)
        ours.record(index, budget, sign * loss)
    return compared


@pytest.mark.parametrize(("goal", "seeds"), [("minimize", range(5000)), ("maximize", range(5000, 10_000))])
def test_it_decides_as_the_paper_does_on_5000_random_histories(goal: Goal, seeds: range) -> None:
    compared = sum(check_history(seed, goal) for seed in seeds)
    assert compared > 50_000


def test_each_bracket_decides_as_the_paper_does_on_2000_random_histories() -> None:
    compared = sum(check_history(seed, "minimize", most_brackets=3) for seed in range(2000))
    assert compared > 10_000


# --- rungs


def is_power(of: int, ratio: Fraction) -> bool:
    while ratio > 1:
        ratio /= of
    return ratio == 1


def test_rungs_are_exact_on_a_wide_grid() -> None:
    for low in (*range(1, 12), 81, 1000):
        for high in (*range(low, low + 120), 3**12, 10**9, 2**60 + 1):
            for eta in range(2, 11):
                *below, top = rungs(low, high, eta)
                assert top == high
                assert [low * eta**k for k in range(len(below))] == below
                # no rung is missing and none is too many: the first power that is not below R is at R or beyond it
                assert Fraction(high, low) <= eta ** len(below)
                assert not below or below[-1] < high
                assert is_power(eta, Fraction(high, low)) == (low * eta ** len(below) == high)


@pytest.mark.parametrize(("eta", "high", "count"), [(3, 243, 6), (3, 59049, 11), (10, 1000, 4), (10, 10**6, 7)])
def test_no_rung_is_lost_where_floating_logarithms_lose_one(eta: int, high: int, count: int) -> None:
    assert [eta**k for k in range(count)] == list(rungs(1, high, eta))


def test_the_top_rung_is_the_maximum_also_where_it_is_no_power() -> None:
    assert rungs(1, 100, 3) == (1, 3, 9, 27, 81, 100)
    assert rungs(5, 5, 3) == (5,)


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ((0, 9, 3), "minBudget is 0: it must be at least 1"),
        ((10, 9, 3), r"maxBudget is 9: it must be at least minBudget \(10\)"),
        ((1, 9, 1), "reductionFactor is 1: it must be at least 2"),
    ],
)
def test_budgets_that_make_no_ladder_are_refused(ladder: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rungs(*ladder)


# --- results


def test_a_result_counts_only_at_the_rung_it_was_measured_at() -> None:
    scheduler = asha()
    scheduler.record(0, 9, 0.5)
    with pytest.raises(KeyError):
        scheduler.standing(0, 3)
    with pytest.raises(ValueError, match=r"trial 0 has a result at budget 10, which is no rung: \(1, 3, 9, 27, 81\)"):
        scheduler.record(0, 10, 0.4)


def test_a_second_result_at_the_same_rung_is_refused() -> None:
    scheduler = asha()
    scheduler.record(0, 1, NAN)
    with pytest.raises(ValueError, match="trial 0 already has a result at rung 1"):
        scheduler.record(0, 1, 0.1)


# --- promotion


def test_the_highest_rung_is_served_first() -> None:
    scheduler = asha()
    for index in range(3):
        scheduler.record(index, 1, index / 10)
        scheduler.record(index, 3, index / 10)
    promoted = [scheduler.promote(), scheduler.promote(), scheduler.promote()]
    assert [(p.index, p.budget) for p in promoted if p] == [(0, 9), (0, 3)]


def test_at_the_top_nobody_is_promoted() -> None:
    scheduler = asha(1, 1)
    for index in range(9):
        scheduler.record(index, 1, index / 10)
    assert scheduler.promote() is None


def test_a_withdrawn_trial_keeps_its_place_and_never_goes_on() -> None:
    scheduler = asha()
    for index in range(3):
        scheduler.record(index, 1, index / 10)
    scheduler.withdraw(0)
    assert scheduler.promote() is None  # the only place that goes on is the withdrawn one's
    for index in range(3, 6):
        scheduler.record(index, 1, index / 10)
    assert promotions(scheduler) == [1]


def test_a_new_trial_starts_at_the_lowest_rung() -> None:
    assert asha(2, 50).start(7) == (0, 2)


# --- brackets


def test_bracket_b_begins_at_rung_b() -> None:
    scheduler = asha(brackets=5)
    assert {(b, 3**b) for b in range(5)} == {tuple(scheduler.start(index)) for index in range(300)}


def test_new_trials_are_shared_out_as_in_hyperband() -> None:
    scheduler, trials = asha(brackets=3, seed=7), 20_000
    counts = np.bincount([scheduler.start(index).bracket for index in range(trials)])
    sizes = np.array(bracket_sizes(5, ETA)[:3])
    assert sizes.tolist() == [81, 34, 15]
    assert np.abs(counts / trials - sizes / sizes.sum()).max() < 0.01  # three standard errors


def test_the_bracket_follows_from_seed_and_index_alone() -> None:
    one, same, other = (asha(brackets=3, seed=seed) for seed in (7, 7, 8))
    expected = [one.start(index) for index in range(100)]
    assert expected == [same.start(index) for index in reversed(range(100))][::-1]
    assert expected != [other.start(index) for index in range(100)]


def test_rungs_of_different_brackets_are_separate_competitions() -> None:
    scheduler = asha(brackets=2)
    starts = [scheduler.start(index) for index in range(40)]
    first, second = ([i for i, start in enumerate(starts) if start.bracket == b][:3] for b in range(2))
    for index in first:
        scheduler.record(index, 1, index)
        scheduler.record(index, 3, index)
    for index in second:
        scheduler.record(index, 3, 100 + index)
    assert promotions(scheduler) == [first[0], second[0], first[0]]
    assert scheduler.explain(second[1], 3) == (
        f"value {100 + second[1]} is place 2 of 3 at rung 3 of bracket 1; the best goes on (cut-off {100 + second[0]})"
    )


def test_a_bracket_has_no_rung_below_its_own_lowest() -> None:
    scheduler = asha(brackets=5)
    index = next(index for index in range(100) if scheduler.start(index).bracket == 2)
    with pytest.raises(ValueError, match=rf"trial {index} has a result at budget 3, which is no rung: \(9, 27, 81\)"):
        scheduler.record(index, 3, 0.5)


def test_a_stored_trial_of_a_bracket_that_the_study_has_not_is_refused() -> None:
    stored = Trial(name="s-0004", spec=TrialSpec(index=4, bracket=2, budget=9, parameters={}))
    with pytest.raises(ValueError, match="trial 4 is in bracket 2: the study's brackets are 0 to 1"):
        asha(brackets=2).fold(stored)


# --- what people are told


def test_a_standing_tells_place_number_cut_off_and_who_goes_on() -> None:
    scheduler = asha()
    for index, value in enumerate([0.44, 0.5, 0.3, 0.61, 0.2, 0.9, 0.7, 0.8, NAN]):
        scheduler.record(index, 3, value)
    assert scheduler.standing(3, 3) == Standing(
        budget=3, value=0.61, place=5, completed=9, go_on=3, cutoff=0.44, top=False
    )
    assert scheduler.explain(3, 3) == "value 0.61 is place 5 of 9 at rung 3; the best 3 go on (cut-off 0.44)"
    assert scheduler.explain(8, 3) == "value not finite, the last of 9 at rung 3; it never goes on"


def test_a_standing_shows_the_values_as_reported_also_when_maximising() -> None:
    scheduler = asha(goal="maximize")
    for index, value in enumerate([0.1, 0.9, 0.5]):
        scheduler.record(index, 1, value)
    assert scheduler.explain(2, 1) == "value 0.5 is place 2 of 3 at rung 1; the best goes on (cut-off 0.9)"


def test_a_standing_says_which_tie_the_index_decided() -> None:
    scheduler = asha()
    for index, value in enumerate([0.7, 0.5, 0.5, 0.5, 0.2, 0.9]):
        scheduler.record(index, 3, value)
    tied = "(tied with trial {}; the lower index goes first); the best 2 go on (cut-off 0.5)"
    assert scheduler.explain(1, 3) == f"value 0.5 is place 2 of 6 at rung 3 {tied.format(2)}"
    assert scheduler.explain(2, 3) == f"value 0.5 is place 3 of 6 at rung 3 {tied.format(1)}"
    assert scheduler.explain(3, 3) == f"value 0.5 is place 4 of 6 at rung 3 {tied.format(1)}"
    assert scheduler.explain(4, 3) == "value 0.2 is place 1 of 6 at rung 3; the best 2 go on (cut-off 0.5)"
    scheduler.record(6, 3, 0.1)  # now no tie is at the cut-off
    scheduler.record(7, 3, 0.1)
    assert scheduler.explain(1, 3) == "value 0.5 is place 4 of 8 at rung 3; the best 2 go on (cut-off 0.1)"


def test_a_standing_says_so_before_anyone_goes_on() -> None:
    scheduler = asha()
    scheduler.record(0, 1, 0.5)
    assert scheduler.explain(0, 1) == "value 0.5 is place 1 of 1 at rung 1; none goes on yet"


def test_a_standing_at_the_top_has_no_cut_off() -> None:
    scheduler = asha()
    for index in range(3):
        scheduler.record(index, 81, 0.5)
    assert scheduler.explain(1, 81) == "value 0.5 is place 2 of 3 at rung 81, the highest"


def test_a_promotion_says_why() -> None:
    scheduler = asha()
    for index in range(6):
        scheduler.record(index, 1, index / 10)
    promotion = scheduler.promote()
    assert promotion
    assert promotion.why == "promoted: value 0 is place 1 of 6 at rung 1; the best 2 go on (cut-off 0.1)"


# --- which scheduler


def spec(scheduler: dict[str, Any]) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "choice": [0.1]}],
            "scheduler": scheduler,
            "limits": {},
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def test_a_control_so_small_that_none_is_ever_due_is_no_error() -> None:
    scheduler = make_scheduler(spec({"asha": {"maxBudget": 9, "control": 1e-320}}), lambda: True)
    for index in range(9):
        scheduler.start(index)
        scheduler.record(index, 1, index / 10)
    promoted = [scheduler.promote() for _ in range(3)]
    assert [each and each.control for each in promoted] == [False] * 3


def test_no_scheduler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"spec\.scheduler names no scheduler"):
        make_scheduler(spec({}), lambda: True)


def test_with_none_every_trial_trains_to_the_full_budget_at_once() -> None:
    scheduler = make_scheduler(spec({"none": {"budget": 27}}), lambda: True)
    assert (scheduler.budgets, scheduler.max_budget) == ((27,), 27)
    for index in range(9):
        assert scheduler.start(index) == (0, 27)
        scheduler.record(index, 27, index / 10)
        assert scheduler.promote() is None
    assert scheduler.explain(8, 27) == "value 0.8 is place 9 of 9 at rung 27, the highest"

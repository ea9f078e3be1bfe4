"""Synchronous Hyperband held against the paper's algorithm, its table, and what can go wrong in a rung."""

import math
from collections import defaultdict
from datetime import UTC, datetime
from itertools import cycle, islice

import numpy as np
import pytest

from halvard import scheduler_spec
from halvard.ladder import bracket_sizes, rungs_from_the_top
from halvard.schedulers.hyperband import Hyperband
from halvard.study import Goal
from halvard.trial import RungResult, Trial, TrialSpec, TrialStatus
from unit.reference import hyperband as paper
from unit.streams import VALUES

NAN = math.nan


class Search:
    """A study of at most `limit` trials, and its scheduler."""

    def __init__(self, ladder: tuple[int, int, int] = (1, 9, 3), goal: Goal = "minimize", limit: int = 1000) -> None:
        low, high, eta = ladder
        self.limit, self.begun = limit, 0
        spec = scheduler_spec.Hyperband(min_budget=low, max_budget=high, reduction_factor=eta)
        self.scheduler = Hyperband(spec, goal, lambda: self.begun < self.limit)

    def ask(self) -> tuple[int, int] | None:
        """The next (trial, budget)."""
        promotion = self.scheduler.promote()
        if promotion is not None:
            return promotion.index, promotion.budget
        return self.begin() if self.begun < self.limit else None

    def begin(self) -> tuple[int, int]:
        index = self.begun
        self.begun += 1
        return index, self.scheduler.start(index).budget

    def first_rung(self, *values: float | None) -> None:
        """Begins so many trials and gives them these results."""
        for value in values:
            self.scheduler.record(*self.begin(), value)

    def promotions(self) -> list[tuple[int, int]]:
        """All that are due."""
        return [(p.index, p.budget) for p in iter(self.scheduler.promote, None)]


# --- the reference


def check_history(seed: int, goal: Goal) -> int:
    """One random history, results in any order, some of them failures; returns how many promotions it held."""
    rng = np.random.default_rng(seed)
    low, eta = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    high = low * eta + int(rng.integers(25))
    limit, workers = int(rng.integers(1, 60)), int(rng.integers(1, 12))
    search, draw = Search((low, high, eta), goal, limit), list(VALUES.values())[seed % len(VALUES)]
    losses: dict[tuple[int, int], float | None] = {}
    trained: dict[tuple[int, int], list[int]] = defaultdict(list)
    running: list[tuple[int, int]] = []
    while True:
        while len(running) < workers and (leg := search.ask()) is not None:
            running.append(leg)
            trained[search.scheduler.bracket(leg[0]), leg[1]].append(leg[0])
        if not running:
            break
        index, budget = running.pop(int(rng.integers(len(running))))
        loss = losses[index, budget] = None if rng.random() < 0.05 else draw(rng, len(losses))
        if loss is None:
            search.scheduler.withdraw(index)
        else:
            search.scheduler.record(index, budget, loss if goal == "minimize" else -loss)
    first = promoted = 0
    for number, (s, n) in enumerate(cycle(paper.brackets(low, high, eta))):
        members = range(first, min(first + n, limit))
        for budget, chosen in paper.bracket(paper.rungs(s, n, high, eta), eta, members, lambda *leg: losses[leg]):
            assert chosen == trained.pop((number, budget), [])
            promoted += len(chosen)
        first += n
        if first >= limit:
            break
    assert not trained
    return promoted - limit


@pytest.mark.parametrize(("goal", "seeds"), [("minimize", range(5000)), ("maximize", range(5000, 10_000))])
def test_it_decides_as_the_paper_does_on_5000_random_histories(goal: Goal, seeds: range) -> None:
    compared = sum(check_history(seed, goal) for seed in seeds)
    assert compared > 40_000


# --- sizes


def test_the_brackets_for_81_are_those_of_the_algorithm() -> None:
    assert bracket_sizes(5, 3) == (81, 34, 15, 8, 5)
    table = [paper.rungs(s, n, 81, 3) for s, n in paper.brackets(1, 81, 3)]
    assert table[:3] == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
    ]


@pytest.mark.parametrize(
    ("eta", "high", "brackets"),
    [(3, 243, 6), (3, 59049, 11), (10, 10, 2), (10, 100, 3), (10, 1000, 4), (10, 10**4, 5), (10, 10**6, 7)],
)
def test_no_bracket_is_lost_where_floating_logarithms_lose_one(eta: int, high: int, brackets: int) -> None:
    assert rungs_from_the_top(1, high, eta) == tuple(eta**k for k in range(brackets))
    assert bracket_sizes(brackets, eta) == tuple(n for _, n in paper.brackets(1, high, eta))


def test_the_brackets_for_243_begin_with_the_one_that_others_lose() -> None:
    search = Search((1, 243, 3))
    starts = [search.scheduler.start(index) for index in range(243 + 98 + 41 + 18 + 9 + 6 + 1)]
    sizes = [(number, sum(start.bracket == number for start in starts)) for number in range(7)]
    assert sizes == [(0, 243), (1, 98), (2, 41), (3, 18), (4, 9), (5, 6), (6, 1)]
    assert [start.budget for start in starts[::-1][:8]] == [1, 243, 243, 243, 243, 243, 243, 81]


def test_budgets_and_sizes_are_exact_on_a_wide_grid() -> None:
    for low in (*range(1, 8), 81):
        for high in (*range(low, low + 60), 3**12, 10**9, 2**53 - 1):
            for eta in range(2, 11):
                expected = list(paper.brackets(low, high, eta))
                budgets = rungs_from_the_top(low, high, eta)
                assert bracket_sizes(len(budgets), eta) == tuple(n for _, n in expected)
                assert list(budgets) == [r for _, r in paper.rungs(*expected[0], high, eta)]


def test_bracket_and_budget_follow_from_the_index_alone() -> None:
    scheduler = Search().scheduler
    expected = [
        (number, r_0)
        for number, (s, n) in enumerate(islice(cycle(paper.brackets(1, 9, 3)), 40))
        for r_0 in [paper.rungs(s, n, 9, 3)[0][1]] * n
    ]
    shuffled = np.random.default_rng(1).permutation(200).tolist()
    assert [expected[index] for index in shuffled] == [tuple(scheduler.start(index)) for index in shuffled]


# --- a rung (the first bracket of 1, 3, 9 has nine trials: three go on, then one)


def test_nobody_goes_on_before_the_rung_is_full_and_then_the_best_do_the_best_first() -> None:
    search = Search()
    search.first_rung(0.9, 0.2, 0.8, 0.1, 0.7, 0.6, 0.5, 0.3)
    assert search.promotions() == []
    search.first_rung(0.4)
    assert search.promotions() == [(3, 3), (1, 3), (7, 3)]


def test_a_rung_waits_for_trials_that_were_promoted_and_still_train() -> None:
    search = Search()
    search.first_rung(*range(9))
    assert [search.ask(), search.ask()] == [(0, 3), (1, 3)]
    search.scheduler.record(0, 3, 0.0)
    search.scheduler.record(1, 3, 0.1)
    assert search.ask() == (2, 3)  # due since before
    assert search.promotions() == []
    search.scheduler.record(2, 3, -0.1)
    assert search.promotions() == [(2, 9)]


def test_no_slot_waits_for_a_rung_the_next_bracket_begins_and_promotions_come_before_it() -> None:
    search = Search()
    search.first_rung(*range(8))
    ninth = search.begin()
    assert search.ask() == (9, 3)
    assert search.scheduler.bracket(9) == 1
    search.scheduler.record(*ninth, 0.5)
    assert search.ask() == (0, 3)


def test_ties_go_to_the_lower_index() -> None:
    search = Search()
    search.first_rung(*[0.5] * 9)
    assert search.promotions() == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf, None])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_what_is_not_finite_never_goes_on_and_stalls_nothing(bad: float | None, goal: Goal) -> None:
    search = Search(goal=goal)
    search.first_rung(bad, bad, 0.3, bad, bad, 0.2, bad, bad, bad)
    assert sorted(search.promotions()) == [(2, 3), (5, 3)]
    search.scheduler.record(2, 3, bad)
    search.scheduler.record(5, 3, 0.2)
    assert search.promotions() == [(5, 9)]


def test_where_nothing_is_finite_nothing_goes_on() -> None:
    search = Search()
    search.first_rung(*[NAN] * 9)
    assert search.promotions() == []


def test_a_rung_does_not_wait_for_a_trial_that_failed() -> None:
    search = Search()
    search.first_rung(*range(8))
    failing, _ = search.begin()
    search.scheduler.withdraw(failing)
    assert search.promotions() == [(0, 3), (1, 3), (2, 3)]
    search.scheduler.record(0, 3, 0.5)
    search.scheduler.withdraw(1)
    search.scheduler.record(2, 3, 0.4)
    assert search.promotions() == [(2, 9)]


def test_a_withdrawn_trial_leaves_its_place_to_the_next_one_unless_it_was_promoted_already() -> None:
    search = Search()
    search.first_rung(*range(9))
    assert search.ask() == (0, 3)
    search.scheduler.withdraw(0)
    search.scheduler.withdraw(1)
    assert search.promotions() == [(2, 3), (3, 3)]


# --- the last bracket is cut short


def test_trials_that_will_never_come_are_the_worst_of_the_last_bracket() -> None:
    search = Search(limit=5)
    search.first_rung(0.5, 0.4, 0.3, 0.2, 0.1)
    assert search.promotions() == [(4, 3), (3, 3), (2, 3)]


def test_a_last_bracket_with_fewer_trials_than_places_lets_all_go_on() -> None:
    search = Search(limit=2)
    search.first_rung(0.5, 0.4)
    assert search.promotions() == [(1, 3), (0, 3)]
    search.scheduler.record(1, 3, 0.5)
    search.scheduler.record(0, 3, 0.4)
    assert search.promotions() == [(0, 9)]


def test_a_raised_limit_fills_the_bracket_up_whose_given_places_stay_given() -> None:
    search = Search(limit=5)
    search.first_rung(0.5, 0.4, 0.3, 0.2, 0.1)
    assert len(search.promotions()) == 3
    search.limit = 9
    for index in (2, 3, 4):
        search.scheduler.record(index, 3, 0.1 * index)
    assert search.promotions() == []  # four more trials are to come to the rung below
    search.first_rung(0.01, 0.02, 0.03, 0.04)
    assert search.promotions() == [(2, 9)]


# --- what people are told, and what is stored


def test_a_trial_that_waits_for_its_rung_says_so() -> None:
    search = Search()
    search.first_rung(0.9, 0.2)
    explained = search.scheduler.explain(0, 1)
    assert explained == (
        "value 0.9 is place 2 of 2 at rung 1 of bracket 0 so far; "
        "the best 3 go on once every trial of the bracket has its result there"
    )


def test_a_decided_rung_tells_its_cut_off_and_a_promotion_why() -> None:
    search = Search()
    search.first_rung(*[0.1 * k for k in range(8)], NAN)
    promotion = search.scheduler.promote()
    assert promotion is not None
    assert promotion.why == ("promoted: value 0 is place 1 of 9 at rung 1 of bracket 0; the best 3 go on (cut-off 0.2)")
    assert search.scheduler.explain(5, 1) == (
        "value 0.5 is place 6 of 9 at rung 1 of bracket 0; the best 3 go on (cut-off 0.2)"
    )
    assert search.scheduler.explain(8, 1) == "value not finite, the last of 9 at rung 1 of bracket 0; it never goes on"


def test_the_top_of_a_bracket_is_the_highest() -> None:
    search = Search((1, 3, 3))
    for _ in range(3):
        search.begin()
    assert search.begin() == (3, 3)
    search.scheduler.record(3, 3, 0.5)
    assert search.scheduler.explain(3, 3) == "value 0.5 is place 1 of 1 at rung 3 of bracket 1, the highest"


def test_a_stored_result_at_a_budget_that_is_no_rung_of_the_bracket_is_refused() -> None:
    result = RungResult(budget=1, value=0.5, step=1, seconds=1, at=datetime(2026, 1, 1, tzinfo=UTC))
    spec = TrialSpec(index=9, bracket=1, budget=3, parameters={})
    with pytest.raises(ValueError, match=r"trial 9 has a result at budget 1, which is no rung: \(3, 9\)"):
        Search().scheduler.fold(Trial(name="s-0009", spec=spec, status=TrialStatus(rungs=(result,))))

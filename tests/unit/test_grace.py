"""`asha.grace`: at rungs below it nobody is eliminated who has a finite value."""

import math

import numpy as np
import pytest

from halvard import scheduler_spec
from halvard.schedulers.asha import Asha
from halvard.study import Goal
from unit.reference.asha import PaperAsha
from unit.streams import VALUES

LADDER = (1, 3, 9, 27)


def asha(grace: int, goal: Goal = "minimize", brackets: int = 1) -> Asha:
    return Asha(scheduler_spec.Asha(max_budget=27, grace=grace, brackets=brackets), goal)


def due(scheduler: Asha) -> list[tuple[int, int]]:
    """(trial, budget) of everything that is due now, in order."""
    return [(p.index, p.budget) for p in iter(scheduler.promote, None)]


def test_below_grace_every_finite_value_goes_on_at_once_and_says_so() -> None:
    scheduler = asha(3)
    scheduler.record(0, 1, 0.9)
    promotion = scheduler.promote()
    assert promotion is not None
    assert promotion.why == "promoted: value 0.9 is place 1 of 1 at rung 1, below grace: every finite value goes on"
    scheduler.record(1, 1, 99.0)
    assert due(scheduler) == [(1, 3)]


def test_at_grace_the_best_third_goes_on() -> None:
    scheduler = asha(3)
    for index in range(3):
        scheduler.record(index, 3, float(index))
    assert due(scheduler) == [(0, 9)]
    assert scheduler.explain(1, 3) == "value 1 is place 2 of 3 at rung 3; the best goes on (cut-off 0)"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_does_not_go_on_below_grace_either(bad: float | None) -> None:
    scheduler = asha(27)
    scheduler.record(0, 1, bad)
    scheduler.record(1, 1, 0.5)
    assert due(scheduler) == [(1, 3)]
    assert scheduler.explain(0, 1) == "value not finite, the last of 2 at rung 1; it never goes on"


def test_who_was_withdrawn_does_not_go_on_below_grace() -> None:
    scheduler = asha(27)
    scheduler.record(0, 1, 0.5)
    scheduler.withdraw(0)
    assert due(scheduler) == []


def test_with_a_grace_of_the_highest_budget_all_go_on_to_it_and_no_further() -> None:
    scheduler = asha(27)
    for budget in LADDER:
        scheduler.record(0, budget, 0.5)
    assert due(scheduler) == [(0, 27), (0, 9), (0, 3)]
    assert scheduler.explain(0, 27) == "value 0.5 is place 1 of 1 at rung 27, the highest"


@pytest.mark.parametrize("grace", [1, 2, 3, 9, 10, 27])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("brackets", [1, 3])
def test_it_promotes_as_the_paper_but_for_grace_in_random_histories(grace: int, goal: Goal, brackets: int) -> None:
    sign = 1 if goal == "minimize" else -1
    compared = 0
    for seed in range(40):
        rng, draw = np.random.default_rng(seed), list(VALUES.values())[seed % len(VALUES)]
        ours = asha(grace, goal, brackets)
        papers = [PaperAsha(LADDER[lowest:], 3, grace=grace) for lowest in range(brackets)]
        bracket: dict[int, int] = {}
        running: list[tuple[int, int]] = []
        for step in range(60):
            while len(running) < 4:
                promotion = ours.promote()
                if promotion is None:
                    assert all(paper.get_job() is None for paper in papers)
                    start = ours.start(len(bracket))
                    running.append((len(bracket), start.budget))
                    bracket[len(bracket)] = start.bracket
                else:
                    leg = promotion.index, promotion.budget
                    assert papers[bracket[promotion.index]].get_job() == leg
                    running.append(leg)
                    compared += 1
            index, budget = running.pop(int(rng.integers(len(running))))
            value = draw(rng, step)
            ours.record(index, budget, value)
            papers[bracket[index]].record(index, budget, sign * value)
    assert compared > 500

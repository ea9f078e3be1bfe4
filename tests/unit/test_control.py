"""Controls: promotions of trials that were not due, and what they tell of early stopping."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard import lifecycle, scheduler_spec
from halvard.control import Draw, Stop, control_status, interval, share, stops
from halvard.ladder import rungs
from halvard.schedulers.asha import Asha
from halvard.study import Goal, StudySpec
from halvard.trial import RungResult, Trial, TrialSpec, TrialState, TrialStatus
from halvard.tuner import Tuner
from unit.reference.asha import PaperAsha
from unit.simulate.conftest import make_study
from unit.streams import VALUES

SELDOM = "from one rung to the next, early stopping errs seldom; the very best are too few for this to tell of them"

Curve = Callable[[int, int], float]


def asha_spec(control: float = 0.1, max_budget: int = 9, **fields: Any) -> scheduler_spec.Asha:
    return scheduler_spec.Asha(max_budget=max_budget, control=control, **fields)


def study_spec(control: float, trials: int, seed: int, **fields: Any) -> StudySpec:
    asha = {"maxBudget": 9, "control": control, **fields}
    return make_study(scheduler={"asha": asha}, limits={"trials": trials}, seed=seed).spec


def run(spec: StudySpec, curve: Curve, workers: int = 4) -> list[Trial]:
    """The records of a study whose legs end in a random order."""
    tuner, rng = Tuner(spec), np.random.default_rng(spec.seed)
    stored, running = dict[int, Trial](), list[int]()
    while True:
        while len(running) < workers and (leg := tuner.ask()):
            known, decided = stored.get(leg.index), leg.trial_spec()
            stored[leg.index] = lifecycle.promoted(known, decided) if known else lifecycle.new_trial("s", decided)
            running.append(leg.index)
        if not running:
            return list(stored.values())
        index = running.pop(int(rng.integers(len(running))))
        value = curve(index, stored[index].spec.budget)
        order = tuner.tell(index, stored[index].spec.budget, value).order
        stored[index] = lifecycle.completed_rung(stored[index], value, 0.0, 0.0, at=0.0, order=order)


def decisions(trials: list[Trial]) -> list[tuple[bool, str]]:
    """All promotions in order: whether each was a control, and why."""
    legs = [(result.decided, result.control, result.decision) for t in trials for result in t.status.rungs[1:]]
    return [(control, why) for _, control, why in sorted(legs)]


def noise(index: int, budget: int) -> float:
    """Values that have nothing to do with each other."""
    return float(np.random.default_rng([index, budget]).random())


# --- who is promoted


@pytest.mark.parametrize(("control", "period"), [(0.1, 10), (0.25, 4), (0.5, 2), (0.3, 3)])
def test_every_so_many_promotions_one_goes_to_a_trial_that_is_not_due(control: float, period: int) -> None:
    promoted = decisions(run(study_spec(control, 300, seed=1), noise))
    turns = [place for place, (control, _) in enumerate(promoted, start=1) if control]
    assert len(promoted) > 130
    assert {place % period for place in turns} == {0}
    assert len(turns) >= 0.6 * len(promoted) / period


def test_a_control_is_one_of_those_that_are_not_due_and_the_due_one_comes_next() -> None:
    asha = Asha(asha_spec(0.5, max_budget=3), "minimize")
    for index, value in enumerate([0.5, 0.1, 0.2, 0.4, 0.3, 0.6]):
        asha.record(index, 1, value)
    promoted = [promotion for _ in range(9) if (promotion := asha.promote())]
    assert [(promotion.index, promotion.control) for promotion in promoted if not promotion.control] == [
        (1, False),
        (2, False),
    ]
    assert [promotion.control for promotion in promoted] == [False, True, False]
    drawn = promoted[1].index
    assert drawn in {0, 3, 4, 5}
    assert promoted[1].why.startswith(
        "control: drawn at random from the 4 that came to rung 1 since the last draw and were not due, "
        f"to see what early stopping loses: value {[0.5, 0.1, 0.2, 0.4, 0.3, 0.6][drawn]} is place "
    )


def test_each_of_those_that_are_not_due_is_drawn_as_often() -> None:
    counts = dict.fromkeys((0, 3, 4, 5), 0)
    for seed in range(2000):
        asha = Asha(asha_spec(0.5, max_budget=3), "minimize", seed)
        for index, value in enumerate([0.5, 0.1, 0.2, 0.4, 0.3, 0.6]):
            asha.record(index, 1, value)
        asha.promote()
        control = asha.promote()
        assert control
        counts[control.index] += 1
    assert max(abs(count - 500) for count in counts.values()) < 4 * math.sqrt(2000 * 0.25 * 0.75)


def test_neither_withdrawn_trials_nor_values_that_are_not_finite_are_drawn() -> None:
    asha = Asha(asha_spec(0.5, max_budget=3), "minimize")
    for index, value in enumerate([math.nan, 0.1, 0.2, 0.4, math.inf, 0.6]):
        asha.record(index, 1, value)
    asha.withdraw(3)
    assert [promotion.index for _ in range(9) if (promotion := asha.promote())] == [1, 5, 2]


def test_where_nobody_can_be_drawn_the_due_one_goes_on() -> None:
    asha = Asha(asha_spec(0.5, max_budget=3), "minimize")
    for index in range(6):
        asha.record(index, 1, math.nan if index > 1 else index)
    promoted = [promotion for _ in range(9) if (promotion := asha.promote())]
    assert [(promotion.index, promotion.control) for promotion in promoted] == [(0, False), (1, False)]


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_all_others_are_promoted_as_the_paper_does(goal: Goal) -> None:
    compared = sum(check_history(seed, goal) for seed in range(400))
    assert compared > 2000


def check_history(seed: int, goal: Goal) -> int:
    """One random asynchronous history; returns how many promotions it held against the paper."""
    rng = np.random.default_rng(seed)
    ladder = rungs(1, int(rng.integers(2, 30)), 3)
    ours = Asha(asha_spec(float(rng.choice([0.1, 0.2, 0.5])), ladder[-1]), goal, seed)
    paper, sign = PaperAsha(ladder, 3), 1 if goal == "minimize" else -1
    draw, running, begun, compared = list(VALUES.values())[seed % len(VALUES)], list[tuple[int, int]](), 0, 0
    for step in range(100):
        while len(running) < 4:
            promotion = ours.promote()
            if promotion is None:
                assert paper.get_job() is None
                running.append((begun, 1))
                begun += 1
                continue
            running.append((promotion.index, promotion.budget))
            if promotion.control:
                level = ladder.index(promotion.budget) - 1
                ranked = sorted(paper.results[level], key=lambda index: (paper.results[level][index], index))
                assert promotion.index in ranked[len(ranked) // 3 :]
                assert promotion.index not in paper.promoted[level]
                paper.promoted[level].add(promotion.index)
            else:
                assert paper.get_job() == (promotion.index, promotion.budget)
                compared += 1
        index, budget = running.pop(int(rng.integers(len(running))))
        loss = draw(rng, step)
        paper.record(index, budget, loss)
        ours.record(index, budget, sign * loss)
    return compared


# --- the interval


def tail(successes: int, size: int, p: float) -> float:
    """The probability of so many successes or more."""
    return sum(math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(successes, size + 1))


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    for size in (1, 2, 5, 17, 60):
        for hits in range(size + 1):
            low, high = interval(hits, size)
            assert low == 0 if hits == 0 else tail(hits, size, low) == pytest.approx(0.05)
            assert high == 1 if hits == size else 1 - tail(hits + 1, size, high) == pytest.approx(0.05)


def test_the_interval_of_a_large_sample_is_that_of_the_normal_distribution() -> None:
    low, high = interval(3000, 10_000)
    half = 1.645 * math.sqrt(0.3 * 0.7 / 10_000)
    assert (low, high) == (pytest.approx(0.3 - half, abs=2e-4), pytest.approx(0.3 + half, abs=2e-4))


def test_the_interval_grows_and_moves_with_hits_and_size_that_are_not_whole() -> None:
    lows, highs = zip(*(interval(hits / 4, 7.3) for hits in range(29)), strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs)
    assert all(low < hits / 4 / 7.3 < high for hits, (low, high) in enumerate(zip(lows, highs, strict=True)) if hits)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_an_interval_holds_the_share_whatever_the_weights(weights: list[int], good: list[bool]) -> None:
    draws = tuple(Draw(i, w, tuple(range(w)), g) for i, (w, g) in enumerate(zip(weights, good, strict=False)))
    known = share([Stop(0, 1, 9, (0.5, 0), draws)])
    assert known is not None
    assert 0 <= known.low <= known.estimate + 1e-9 <= known.high + 2e-9 <= 1 + 2e-9


def test_an_interval_is_found_where_by_rounding_both_tails_are_the_longer_one() -> None:
    low, high = interval(0.14285714285714285 * (7 / 3), 7 / 3)
    # the distribution functions of beta(1/3, 3) and beta(4/3, 2) in closed form
    assert low ** (1 / 3) * (1 + (1 - low) / 3 + 2 * (1 - low) ** 2 / 9) == pytest.approx(0.05)
    assert high ** (4 / 3) * (1 + 4 * (1 - high) / 3) == pytest.approx(0.95)


# --- the estimate


def truth(found: list[Stop], curve: Curve, above: dict[int, int]) -> float:
    good = [
        (curve(index, above[stop.budget]), index) <= stop.bar
        for stop in found
        if stop.bar is not None
        for draw in stop.draws
        for index in draw.stood_for
    ]
    return sum(good) / len(good)


def drifting(index: int, budget: int) -> float:
    """Those that come late are better at the end, which the beginning does not show."""
    rng = np.random.default_rng([index, 7])
    begin, end = rng.random(2)
    return float(begin if budget == 1 else end - index / 200)


@pytest.mark.parametrize("curve", [noise, drifting])
def test_the_estimate_is_unbiased_and_its_interval_covers_the_truth(curve: Curve) -> None:
    asha, errors, covered = asha_spec(0.2), [], 0
    for seed in range(50):
        # other values each time, and the same drift
        def shifted(index: int, budget: int, seed: int = seed) -> float:
            return curve(index + 1000 * seed, budget) + (5.0 * seed if curve is drifting else 0.0)

        found = stops(asha, "minimize", run(study_spec(0.2, 100, seed), shifted))
        known, true = share(found), truth(found, shifted, {1: 3, 3: 9})
        assert known is not None
        errors.append(known.estimate - true)
        covered += known.low <= true <= known.high
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(len(errors))
    assert covered >= 45


def test_stopping_by_values_that_say_nothing_is_as_bad_as_stopping_blindly() -> None:
    asha = asha_spec(0.2, max_budget=3)
    shares = []
    for seed in range(40):

        def shifted(index: int, budget: int, seed: int = seed) -> float:
            return noise(index + 1000 * seed, budget)

        trials = run(study_spec(0.2, 100, seed, maxBudget=3), shifted)
        known = share(stops(asha, "minimize", trials))
        assert known is not None
        shares.append(known.estimate)
    assert abs(np.mean(shares) - 1 / 3) < 3 * np.std(shares) / math.sqrt(len(shares))


def test_where_early_values_are_right_nothing_is_lost() -> None:
    trials = run(study_spec(0.25, 200, seed=0), lambda index, _budget: noise(index, 0))
    status = control_status(asha_spec(0.25), "minimize", trials)
    assert status is not None
    assert (status.total.estimate, status.total.low, status.total.good) == (0.0, 0.0, 0)
    assert status.message.endswith(f"stopping blindly would make it 33%): {SELDOM}")


@pytest.mark.parametrize("brackets", [1, 3])
def test_a_draw_stands_for_as_many_as_it_was_drawn_from(brackets: int) -> None:
    spec = study_spec(0.2, 200, seed=3, brackets=brackets)
    trials = run(spec, noise)
    assert spec.scheduler.asha is not None
    found = stops(spec.scheduler.asha, "minimize", trials)
    said = {
        (trial.index, before.budget): int(re.findall(r"from the (\d+) that came to rung", result.decision)[0])
        for trial in trials
        for before, result in zip(trial.status.rungs, trial.status.rungs[1:], strict=False)
        if result.control
    }
    draws = {(draw.index, stop.budget): draw for stop in found for draw in stop.draws}
    assert {leg: draw.among for leg, draw in draws.items()} == {leg: said[leg] for leg in draws}
    assert len(draws) > 10
    assert all(index in draw.stood_for for (index, _), draw in draws.items())
    assert all(len(draw.stood_for) <= draw.among for draw in draws.values())


def test_maximising_tells_the_same() -> None:
    trials = run(study_spec(0.2, 150, seed=5), noise)
    spec = make_study(
        scheduler={"asha": {"maxBudget": 9, "control": 0.2}},
        limits={"trials": 150},
        seed=5,
        objective={"metric": "accuracy", "goal": "maximize"},
    ).spec
    mirrored = run(spec, lambda index, budget: -noise(index, budget))
    one, other = stops(asha_spec(0.2), "minimize", trials), stops(asha_spec(0.2), "maximize", mirrored)
    assert one == other
    assert sum(len(stop.draws) for stop in one) > 5


# --- what counts, on records written by hand


def stored(
    index: int, values: list[float | None], orders: list[int], state: TrialState = "Paused", *, control: bool = False
) -> Trial:
    """A trial on the rungs 1 and 3: `orders` are those of its first leg, its result, its second leg, and so on."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    legs = list(zip((1, 3), orders[::2], strict=False))
    results = tuple(
        RungResult(budget=budget, value=value, step=budget, seconds=1, at=at, order=order, decided=decided)
        for (budget, decided), value, order in zip(legs, values, orders[1::2], strict=False)
    )
    if control and len(results) == 2:
        results = (results[0], results[1].model_copy(update={"control": True}))
    budget, order = legs[-1]
    spec = TrialSpec(index=index, budget=budget, parameters={}, order=order, control=control)
    over = orders[-1] if state == "Failed" else 0
    return Trial(name=f"s-{index}", spec=spec, status=TrialStatus(state=state, rungs=results, order=over))


DUE = [stored(i, [0.01 * i, 0.1 * i], [2 * i + 1, 2 * i + 2, 100 + 2 * i, 101 + 2 * i]) for i in range(3)]
STOPPED = [stored(i, [0.5 + 0.01 * i], [2 * i + 1, 2 * i + 2]) for i in range(4, 9)]


def only(trials: list[Trial]) -> Stop:
    [found] = stops(asha_spec(max_budget=3), "minimize", trials)
    return found


@pytest.mark.parametrize(("value", "good"), [(-0.0001, True), (0.0, False), (0.0001, False), (None, False)])
def test_who_would_be_of_the_best_third_is_good_enough_and_of_equal_ones_the_first(
    value: float | None,
    good: bool,  # noqa: FBT001
) -> None:
    found = only([*DUE, stored(3, [0.9, value], [7, 8, 50, 51], control=True), *STOPPED])
    assert (found.stopped, found.bar) == (6, (0.0, 0))
    assert [(draw.index, draw.among, draw.good) for draw in found.draws] == [(3, 6, good)]


def test_a_control_that_failed_was_not_good_enough() -> None:
    found = only([*DUE, stored(3, [0.9], [7, 8, 50, 51], "Failed", control=True), *STOPPED])
    assert [draw.good for draw in found.draws] == [False]


def test_a_control_without_a_result_tells_nothing_yet_nor_do_those_after_it() -> None:
    first, last = stored(3, [0.9], [7, 8, 50], control=True), stored(9, [0.9, 0.0], [60, 61, 70, 71], control=True)
    assert only([*DUE, first, *STOPPED, last]).draws == ()
    done = stored(3, [0.9, 0.3], [7, 8, 50, 55], control=True)
    assert [draw.index for draw in only([*DUE, done, *STOPPED, last]).draws] == [3, 9]


def test_a_control_that_came_to_be_due_was_not_stopped() -> None:
    best = stored(3, [0.03, 0.2], [7, 8, 50, 51], control=True)
    assert [draw.index for draw in only([*DUE, best, *STOPPED]).draws] == [3]
    later = [stored(i, [0.9], [2 * i + 100, 2 * i + 101]) for i in range(10, 14)]  # now four of twelve go on
    assert only([*DUE, best, *STOPPED, *later]).draws == ()


def test_a_trial_that_failed_while_it_waited_was_not_stopped() -> None:
    assert only([*DUE, *STOPPED, stored(9, [0.9], [60, 61])]).stopped == 6
    assert only([*DUE, *STOPPED, stored(9, [0.9], [60, 61], "Failed")]).stopped == 5


# --- what people are told


def test_without_controls_there_is_nothing_to_tell() -> None:
    assert control_status(asha_spec(0.0), "minimize", DUE) is None


def test_before_the_first_draw_nothing_is_known() -> None:
    status = control_status(asha_spec(max_budget=3), "minimize", [*DUE, *STOPPED])
    assert status is not None
    assert status.message == (
        "5 times a trial was stopped early; 0 of these, drawn at random, trained on: "
        "nothing is known yet of how often early stopping errs"
    )
    assert (status.total.stopped, status.total.drawn, status.total.estimate) == (5, 0, None)


def test_the_message_says_how_many_and_how_sure() -> None:
    status = control_status(asha_spec(), "minimize", run(study_spec(0.1, 300, seed=4), noise))
    assert status is not None
    total = status.total
    assert total.good > 1
    assert status.message == (
        f"{total.stopped} times a trial was stopped early; {total.drawn} of these, drawn at random, trained on all the "
        f"same, and {total.good} were good enough at the next rung to go on. So about {total.estimate:.0%} were "
        f"stopped too soon (90 % sure: {total.low:.0%} to {total.high:.0%}; stopping blindly would make it 33%): "
        "too few were drawn to say more"
    )
    assert [rung.budget for rung in status.rungs] == [1, 3]
    assert sum(rung.stopped for rung in status.rungs) == total.stopped
    assert sum(rung.drawn for rung in status.rungs) == total.drawn


def test_where_much_is_lost_it_says_what_to_do() -> None:
    trials = run(study_spec(0.5, 400, seed=2), lambda index, budget: noise(index, 0) * (1 if budget == 1 else -1))
    status = control_status(asha_spec(0.5), "minimize", trials)
    assert status is not None
    assert status.message.endswith("early stopping errs often; set grace above 1, or a higher minBudget")


def test_rungs_at_which_nobody_is_eliminated_are_left_out() -> None:
    spec = study_spec(0.2, 150, seed=5, grace=3)
    assert spec.scheduler.asha is not None
    status = control_status(spec.scheduler.asha, "minimize", run(spec, noise))
    assert status is not None
    assert [rung.budget for rung in status.rungs] == [3]
    assert status.total.drawn > 0

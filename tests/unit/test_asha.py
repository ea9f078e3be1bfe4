"""ASHA held against the paper's pseudo-code, exact arithmetic, and the cases that other engines get wrong."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from halvard import study
from halvard.schedulers import make_scheduler
from halvard.schedulers.asha import Asha, Standing, rungs
from halvard.study import Goal, Scheduler, StudySpec

NAN, INF = math.nan, math.inf
ETA = 3


def asha(min_budget: int = 1, max_budget: int = 81, eta: int = ETA, goal: Goal = "minimize") -> Asha:
    return Asha(study.Asha(min_budget=min_budget, max_budget=max_budget, reduction_factor=eta), goal)


def promotions(scheduler: Asha) -> list[int]:
    """The indices of everything that is due now, in order."""
    found = []
    while (promotion := scheduler.promote()) is not None:
        found.append(promotion.index)
    return found


def stream(values: Iterable[float | None], goal: Goal = "minimize") -> list[list[int]]:
    """The promotions that follow each of these results at the lowest of two rungs."""
    scheduler = asha(1, 3, goal=goal)
    steps = []
    for index, value in enumerate(values):
        scheduler.record(index, 1, value)
        steps.append(promotions(scheduler))
    return steps


def flat(steps: list[list[int]]) -> list[int]:
    return [index for step in steps for index in step]


def best_third(values: Sequence[float]) -> set[int]:
    ranked = sorted((value, index) for index, value in enumerate(values) if math.isfinite(value))
    return {index for _, index in ranked[: len(values) // ETA]}


# --- the reference: Algorithm 2 of the paper, line by line, with the tie-break and the non-finite rule of the docstring


@dataclass
class PaperAsha:
    budgets: tuple[int, ...]
    eta: int
    results: list[dict[int, float]] = field(default_factory=list)
    promoted: list[set[int]] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.results = [{} for _ in self.budgets]
        self.promoted = [set() for _ in self.budgets]

    def record(self, index: int, budget: int, loss: float) -> None:
        self.results[self.budgets.index(budget)][index] = loss if math.isfinite(loss) else INF

    def get_job(self) -> tuple[int, int] | None:
        for k in reversed(range(len(self.budgets) - 1)):
            ranked = sorted(self.results[k], key=lambda index: (self.results[k][index], index))
            candidates = ranked[: len(ranked) // self.eta]
            promotable = [t for t in candidates if self._may_go_on(t, k)]
            if promotable:
                self.promoted[k].add(promotable[0])
                return promotable[0], self.budgets[k + 1]
        return None

    def _may_go_on(self, trial: int, k: int) -> bool:
        return trial not in self.promoted[k] and trial not in self.failed and self.results[k][trial] < INF


VALUES: dict[str, Callable[[np.random.Generator, int], float]] = {
    "normal": lambda rng, _: float(rng.normal()),
    "few levels": lambda rng, _: float(rng.integers(4)),
    "all tied": lambda _, __: 0.5,
    "improving": lambda _, step: -float(step),
    "worsening": lambda _, step: float(step),
    "mostly infinite": lambda rng, _: float(rng.normal()) if rng.random() < 0.25 else float(rng.choice([INF, -INF])),
    "some NaN": lambda rng, _: float(rng.normal()) if rng.random() < 0.75 else NAN,
}


def check_history(seed: int, goal: Goal) -> int:
    """One random asynchronous history with failures; returns how many promotions it held against the paper."""
    rng = np.random.default_rng(seed)
    low, eta = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    ours = asha(low, low + int(rng.integers(40)), eta, goal)
    paper = PaperAsha(ours.budgets, eta)
    draw = list(VALUES.values())[seed % len(VALUES)]
    sign, workers = 1 if goal == "minimize" else -1, int(rng.integers(1, 9))
    running: list[tuple[int, int]] = []
    started = compared = 0
    for step in range(60):
        while len(running) < workers:
            expected, actual = paper.get_job(), ours.promote()
            assert expected == (actual and (actual.index, actual.budget))
            compared += expected is not None
            running.append(expected or (started, ours.budgets[0]))
            started += expected is None
        if rng.random() < 0.1:  # one fails, whether it runs or waits at a rung
            failed = int(rng.integers(started))
            paper.failed.add(failed)
            ours.withdraw(failed)
            running = [job for job in running if job[0] != failed]
            continue
        index, budget = running.pop(int(rng.integers(len(running))))
        loss = draw(rng, step)
        paper.record(index, budget, loss)
        ours.record(index, budget, sign * loss)
    return compared


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_it_decides_as_the_paper_does_on_2100_random_histories(goal: Goal) -> None:
    compared = sum(check_history(seed, goal) for seed in range(2100))
    assert compared > 20_000


# --- rungs


def test_rungs_are_exact_on_a_wide_grid() -> None:
    for low in (*range(1, 12), 81, 1000):
        for high in (*range(low, low + 300), 3**12, 10**9, 2**60 + 1):
            for eta in range(2, 11):
                expected = [low * eta**k for k in range(64) if low * eta**k < high] + [high]
                assert expected == list(rungs(low, high, eta))


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


# --- the battery: every row with the right answer


def test_of_ties_exactly_a_third_go_on_the_first_trials_first() -> None:
    steps = stream([0.5] * 300)
    for n in range(1, 301):
        assert flat(steps[:n]) == list(range(n // ETA))


@pytest.mark.parametrize("levels", [2, 3, 10])
def test_with_few_levels_the_best_third_goes_on_and_hardly_more(levels: int) -> None:
    values = [float(v) for v in np.random.default_rng(1).integers(levels, size=300)]
    promoted = flat(stream(values))
    assert best_third(values) <= set(promoted)
    assert 100 <= len(promoted) <= 120


def test_of_independent_values_the_best_third_goes_on_and_hardly_more() -> None:
    values = np.random.default_rng(2).normal(size=400).tolist()
    promoted = flat(stream(values))
    assert best_third(values) <= set(promoted)
    assert len(promoted) <= 133 + 20  # the paper expects about sqrt(n) promotions too many


def test_in_an_improving_stream_every_newcomer_is_the_best_and_goes_on() -> None:
    assert stream([-float(i) for i in range(300)]) == [[], [], *([i] for i in range(2, 300))]


def test_in_a_worsening_stream_exactly_a_third_goes_on() -> None:
    steps = stream([float(i) for i in range(300)])
    assert steps == [[n // ETA - 1] if n % ETA == 0 else [] for n in range(1, 301)]


@pytest.mark.parametrize("bad", [NAN, INF, -INF, None])
def test_one_value_that_is_not_finite_after_fifty_good_ones_does_not_go_on(bad: float | None) -> None:
    good = np.random.default_rng(3).normal(size=50).tolist()
    assert 50 not in flat(stream([*good, bad, *good]))


@pytest.mark.parametrize("bad", [NAN, INF, -INF, None])
@pytest.mark.parametrize("share", [0.25, 0.75])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_values_that_are_not_finite_never_go_on_whatever_their_share(
    bad: float | None, share: float, goal: Goal
) -> None:
    rng = np.random.default_rng(4)
    values = [bad if rng.random() < share else float(rng.normal()) for _ in range(400)]
    promoted = flat(stream(values, goal))
    finite = {
        index for index, value in enumerate(values) if value != bad and value is not None and math.isfinite(value)
    }
    assert set(promoted) <= finite
    assert len(promoted) >= min(len(finite), 400 // ETA)  # and nothing stalls


def test_what_is_not_finite_counts_as_a_result() -> None:
    assert stream([NAN, NAN, 0.7]) == [[], [], [2]]
    assert stream([0.7, NAN, NAN]) == [[], [], [0]]


def test_where_nothing_is_finite_nothing_goes_on() -> None:
    assert flat(stream([NAN] * 100)) == []


@pytest.mark.parametrize("kind", VALUES)
def test_minimising_and_maximising_are_exact_mirrors(kind: str) -> None:
    rng = np.random.default_rng(5)
    values = [VALUES[kind](rng, step) for step in range(400)]
    assert stream(values) == stream([-value for value in values], "maximize")


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


def test_no_scheduler_is_refused() -> None:
    spec = StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "choice": [0.1]}],
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {},
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )
    with pytest.raises(ValueError, match=r"spec\.scheduler needs asha"):
        make_scheduler(spec.model_copy(update={"scheduler": Scheduler()}))

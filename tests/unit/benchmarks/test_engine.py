"""The benchmark of decisions: what is known is what a study would know, and what is counted is what was decided."""

import math
from collections.abc import Iterable

import pytest
from benchmarks.engine import report
from benchmarks.engine.contenders import CONTENDERS, REFERENCE, SAMPLERS, SCHEDULERS, Contender, spec_of
from benchmarks.engine.engine import Limits, Measured, measure
from benchmarks.engine.memory import bytes_a_trial
from benchmarks.engine.problem import BUDGETS, WORKERS
from benchmarks.engine.stopping import StoppingEngine
from benchmarks.engine.with_halvard import history
from typing_extensions import override

from halvard import study
from halvard.trial import Trial
from halvard.tuner import Tuner

OURS = [each for each in CONTENDERS if not each.peer]


# --- what is known


def test_every_scheduler_and_sampler_that_a_study_can_have_takes_part() -> None:
    assert {kind for kind, _ in SCHEDULERS.values()} == set(study.Scheduler.model_fields)
    assert set(SAMPLERS) == set(study.Sampler.model_fields)
    assert {f"{name} + random" for name in SCHEDULERS} <= {each.name for each in CONTENDERS}
    assert {f"asha + {name}" for name in SAMPLERS} <= {each.name for each in CONTENDERS}


@pytest.mark.parametrize("scheduler", [each for each in SCHEDULERS if each != "adaptive"])
def test_a_history_is_a_study_of_which_all_is_decided(scheduler: str) -> None:
    spec = spec_of(scheduler, "random", seed=3)
    trials = history(spec, 30)
    assert [trial.index for trial in trials] == list(range(30))
    assert [trial for trial in trials if trial.assigned] == []
    leg = Tuner(spec, trials).ask()
    assert leg is not None
    assert (leg.index, leg.new) == (30, True)


def test_a_history_climbs_the_whole_ladder_and_follows_from_its_seed() -> None:
    trials = history(spec_of("asha", "random", seed=3), 300)
    assert {result.budget for trial in trials for result in trial.status.rungs} == set(BUDGETS)
    assert trials == history(spec_of("asha", "random", seed=3), 300)
    assert trials != history(spec_of("asha", "random", seed=4), 300)


# --- what is counted


class Counted:
    """Begins a trial at every third decision."""

    due, begun, decisions = 1, 0, 0

    def decide(self, value: float) -> None:  # noqa: ARG002
        self.decisions += 1
        self.begun += self.decisions % 3 == 0


@pytest.mark.parametrize(
    ("limits", "decisions"),
    [(Limits(fewest=2, most=9, seconds=3600.0), 9), (Limits(fewest=6, most=9, seconds=0.0), 6)],
)
def test_decisions_are_counted_by_what_came_of_them_until_there_are_enough(limits: Limits, decisions: int) -> None:
    engine = Counted()
    measured = measure(engine, 0, limits)
    assert engine.decisions == decisions
    assert (len(measured.new), len(measured.others)) == (decisions // 3, decisions - decisions // 3)


@pytest.mark.parametrize("contender", OURS, ids=lambda each: each.name)
def test_every_contender_decides_and_begins_trials(contender: Contender) -> None:
    engine = contender.make(history(spec_of(contender.history, "random", seed=0), 30), 0)
    assert engine.begun <= WORKERS
    measured = measure(engine, 1, Limits(fewest=60, most=60, seconds=3600.0))
    assert len(measured.new) + len(measured.others) == 60
    assert measured.new


def test_statistics_of_a_round() -> None:
    measured = Measured(new=[4.0, 8.0], others=[1.0])
    assert (measured.typical, measured.of_new, measured.a_trial) == (4.0, 6.0, 6.5)
    none_began = Measured(new=[], others=[1.0, 3.0])
    assert (none_began.typical, none_began.of_new) == (2.0, 2.0)
    assert math.isnan(none_began.a_trial)


# --- peers


class Peer(StoppingEngine[int]):
    """Stops what is worse than the worst trial that it remembers."""

    def __init__(self, trials: Iterable[Trial], *, forgets: bool = False) -> None:
        self.forgets = forgets
        super().__init__(trials)

    @override
    def remember(self, trials: Iterable[Trial]) -> None:
        values = [trial.status.rungs[0].value or 0.0 for trial in trials]
        self.worst = math.inf if self.forgets else max(values)

    @override
    def begin(self) -> int:
        return self.begun

    @override
    def goes_on(self, trial: int, budget: int, value: float) -> bool:
        return value <= self.worst and budget < BUDGETS[-1]


def test_trials_of_a_peer_report_in_turn_rung_by_rung() -> None:
    engine = Peer(history(spec_of("asha", "random", seed=0), 30))
    dues = []
    for _ in range(2 * WORKERS):
        dues.append(engine.due)
        engine.decide(0.0)
    assert dues == [*[1] * (WORKERS - 2), 1, 3, *[3] * (WORKERS - 2), 3, 9]  # two decided when it was made: one ended


def test_a_peer_that_does_not_decide_by_what_it_should_know_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=r"a trial with the value 1000000.0: ended: False"):
        Peer(history(spec_of("asha", "random", seed=0), 30), forgets=True)


# --- memory


class Holding:
    """Holds so many bytes for each trial."""

    due = begun = 1

    def __init__(self, trials: Iterable[Trial], size: int) -> None:
        self.held = [bytearray(size) for _ in trials]

    def decide(self, value: float) -> None:
        """Decides nothing."""


def test_memory_is_what_is_held_for_a_trial() -> None:
    trials = history(spec_of("asha", "random", seed=0), 200)
    small, large = (
        bytes_a_trial(Contender("", frozenset(), lambda known, _, size=size: Holding(known, size)), trials, 0)
        for size in (0, 5000)
    )
    assert small < 300
    assert 4900 <= large - small < 5100


# --- tables

SIZES = (1_000, 10_000, 100_000)


def cells(seconds: dict[str, float]) -> dict[tuple[str, int], list[Measured]]:
    """Two rounds of everyone; a microsecond where nothing else is said, at all sizes alike."""
    return {
        (each.name, size): [Measured([factor * seconds.get(each.name, 1e-6)], []) for factor in (1, 3)]
        for each in CONTENDERS
        for size in SIZES
    }


@pytest.mark.parametrize(
    ("peer", "verdict"), [(2e-5, "20 times below Ray Tune ASHA: met"), (9e-6, "9 times below Ray Tune ASHA: missed")]
)
def test_the_goal_is_held_against_the_fastest_peer(peer: float, verdict: str) -> None:
    known = cells({"Ray Tune ASHA": peer, "Optuna SHA + random": 1.0, "Syne Tune ASHA": 1.0})
    table, *_ = report.tables(known, {}, SIZES)
    assert verdict in table.note
    ours, ray = (next(row for row in table.rows if row[0] == name) for name in (REFERENCE.name, "Ray Tune ASHA"))
    assert ours[1:7] == ("2 µs", "2 µs", "2 µs", "1 µs - 3 µs", "1", "1")
    assert float(ray[6]) == pytest.approx(peer / 1e-6)


@pytest.mark.parametrize(("seconds", "verdict"), [(0.010, "(20 ms: met)"), (0.011, "(22 ms: missed)")])
def test_auto_has_a_limit(seconds: float, verdict: str) -> None:
    _, _, samplers, _ = report.tables(cells({"asha + auto": seconds}), {}, SIZES)
    assert verdict in samplers.note


def test_every_row_fits_its_table_and_every_measurement_is_kept() -> None:
    tables = report.tables(cells({}), {"asha + random": 2048.0}, SIZES)
    assert [len(row) for table in tables for row in table.rows] == [len(t.columns) for t in tables for _ in t.rows]
    assert tables[3].rows == [("asha + random", "2.0 KiB")]
    assert tables[0].raw["asha + random, 1000, new"] == [[1e-6], [3e-6]]

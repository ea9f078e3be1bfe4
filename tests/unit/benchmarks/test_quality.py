"""The benchmark of quality: its world against Halvard's own, what it keeps of runs, and what it says of them."""

import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from benchmarks.quality import loop, report, schedule, with_halvard
from benchmarks.quality.loop import Improvement, Outcome, Work
from benchmarks.quality.policies import POLICIES, REFERENCE, Policy
from benchmarks.quality.problem import UNIT, Condition, Problem, read_problems
from benchmarks.quality.runs import Run, Store, Task, _bare
from benchmarks.quality.summary import mean, paired, pooled, reached, regret

from halvard.simulate.conditions import Conditions
from halvard.simulate.table import Table, TableError
from halvard.simulate.world import simulate
from halvard.tuner import Tuner

ROWS, STEPS = 120, 9


def make_problem(seed: int = 0) -> Problem:
    """Better in the middle, and with every step; every tenth row diverges; costs differ."""
    draw = np.random.default_rng(seed)
    u = draw.random((ROWS, 2))
    value = ((u - 0.5) ** 2).sum(axis=1, keepdims=True) + 0.3 / np.arange(1, STEPS + 1)
    value = value + 0.01 * draw.standard_normal((ROWS, STEPS))
    value[::10, 2:] = np.nan
    seconds = draw.lognormal(size=(ROWS, 1)) * (0.9 + 0.2 * draw.random((ROWS, STEPS)))
    return Problem("made-up", "0", Table(("x0", "x1"), u, value, seconds).scaled(UNIT))


class TunerSearch:
    """Halvard's tuner by ask and tell: a trial whose promotion is due when it reports goes on in its Pod."""

    def __init__(self, problem: Problem, condition: Condition, seed: int, sampler: str, scheduler: str) -> None:
        study = with_halvard.make_study(problem, condition, seed, sampler, scheduler)
        self._tuner = Tuner(study.spec, (), with_halvard.trained_rows(study.spec, problem.table))
        self._names = problem.table.names
        self._asked: list[Work] = []
        self.told_at = ()

    def ask(self) -> Work | None:
        if self._asked:
            return self._asked.pop()
        leg = self._tuner.ask()
        if leg is None:
            return None
        point = [float(leg.parameters[name]) for name in self._names] if leg.new else None
        return Work(leg.index, leg.budget, point)

    def trains(self, trial: int, point: Sequence[float]) -> None:
        pass

    def tell(self, trial: int, step: int, value: float) -> int:
        self._tuner.tell(trial, step, value)
        work = self.ask()
        if work is None or work.trial == trial:
            return work.until if work else step
        self._asked.append(work)
        return step


@pytest.mark.parametrize("start_up", [0.0, 0.06])
@pytest.mark.parametrize(("sampler", "scheduler"), [("random", "none"), ("random", "asha"), ("tpe", "asha")])
def test_both_worlds_have_the_same_clock(sampler: str, scheduler: str, start_up: float) -> None:
    problem, condition, compared = make_problem(), Condition(workers=4, start_up=start_up, cap=5.0), 0
    for seed in range(4):
        ours = with_halvard.run(problem, condition, seed, sampler=sampler, scheduler=scheduler)
        theirs = loop.run(TunerSearch(problem, condition, seed, sampler, scheduler), problem, condition)
        np.testing.assert_allclose(ours.improvements, theirs.improvements, rtol=1e-9)
        assert (ours.begun, ours.finished) == (theirs.begun, theirs.finished)
        compared += len(ours.improvements)
    assert compared > 8


class Scripted:
    """Trials in a row at given points, stopped after these steps."""

    def __init__(self, told_at: Sequence[int], stops: Sequence[int]) -> None:
        self.told_at, self._stops = told_at, stops
        self.begun, self.told = 0, list[tuple[int, int]]()

    def ask(self) -> Work | None:
        if self.begun == len(self._stops):
            return None
        self.begun += 1
        return Work(self.begun - 1, 3, [0.0])

    def trains(self, trial: int, point: Sequence[float]) -> None:
        pass

    def tell(self, trial: int, step: int, value: float) -> int:  # noqa: ARG002
        self.told.append((trial, step))
        return step if step >= self._stops[trial] else 3


def test_a_start_up_is_paid_once_a_pod_and_a_miss_costs_all_workers() -> None:
    table = Table(
        ("a",), np.array([[0.0], [0.1], [0.2]]), np.array([[3.0, 2, 1], [6, 5, 4], [9, 8, 7]]), np.ones((3, 3))
    )
    problem = Problem("p", "0", table.scaled(UNIT))  # a step is a third of R
    search = Scripted(told_at=(1, 2), stops=(1, 3, 3))
    outcome = loop.run(search, problem, Condition(workers=1, start_up=0.5, cap=3.0))
    assert search.told == [(0, 1), (1, 1), (1, 2), (1, 3)]  # the third trial is cut off
    assert outcome.improvements == [pytest.approx((0.5 + 1 / 3 + 0.5 + 1, 0.5 + 1 / 3 + 0.5 + 1, 4.0))]
    assert (outcome.begun, outcome.finished) == (3, 1)
    made = Run("", outcome.improvements, 3, 1, 0.0)
    assert reached(made, target=4.0, cap=3.0, workers=1).at == pytest.approx(2 + 1 / 3)
    missed = reached(made, target=3.9, cap=3.0, workers=16)
    assert (missed.at, missed.busy, missed.missed) == (3.0, 48.0, True)


def test_a_sampler_is_told_what_its_trials_really_train() -> None:
    problem, condition = make_problem(), Condition(workers=4, start_up=0.0, cap=3.0)
    study = with_halvard.make_study(problem, condition, 0, "tpe", "asha")
    sampler = with_halvard.trained_rows(study.spec, problem.table)
    simulation = simulate(study, problem.table, Conditions(workers=4), sampler)
    rows = [simulated.row for simulated in simulation.trials]
    told = [tuple(simulated.trial.spec.parameters[name] for name in ("x0", "x1")) for simulated in simulation.trials]
    assert len(set(rows)) == len(rows) > 20
    np.testing.assert_array_equal(problem.table.u[rows], told)


def test_the_target_is_the_worst_of_the_best_share_and_never_a_diverged_one() -> None:
    final = np.r_[np.full(150, np.nan), np.arange(150.0)]
    rng = np.random.default_rng(0).permutation(300)
    table = Table(("a",), np.zeros((300, 1)), final[rng][:, None], np.ones((300, 1)))
    assert Problem("p", "0", table).target == 2.0
    assert Problem("quant", "0", table).target == 8.0


def test_tables_come_from_a_folder_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no npz file is there"):
        read_problems(tmp_path)
    table = make_problem().table
    np.savez(tmp_path / "one.npz", names=table.names, u=table.u, value=table.value, seconds=table.seconds)
    (problem,) = read_problems(tmp_path)
    assert (problem.name, problem.steps, problem.rungs(3)) == ("one", STEPS, (1, 3, 9))
    assert problem.table.full_training == pytest.approx(UNIT)
    assert problem.finite(math.nan) == np.nanmax(table.value)


def test_a_table_and_its_coordinates_may_have_any_names(tmp_path: Path) -> None:
    table = make_problem().table
    path = tmp_path / "Some_table 2.npz"
    np.savez(path, names=["learning rate", "log10(decay)"], u=table.u, value=table.value, seconds=table.seconds)
    (problem,) = read_problems(tmp_path)
    outcome = with_halvard.run(problem, Condition(4, 0.0, 1.0), 0, sampler="random", scheduler="asha")
    assert (problem.name, outcome.begun > 4) == ("Some_table 2", True)


def test_the_tables_of_the_repository_are_ones() -> None:
    problems = read_problems(Path(__file__).parents[3] / "benchmarks" / "tables")
    assert [(problem.name, len(problem.table.u), problem.steps) for problem in problems] == [
        ("bcancer", 1000, 81),
        ("digits", 2000, 81),
        ("friedman", 1000, 81),
        ("quant", 1000, 81),
    ]


def make_tasks(seeds: int = 2) -> list[Task]:
    policies = [policy for policy in POLICIES if policy.package == "halvard"][:2]
    conditions = [Condition(2, 0.0, 1.0), Condition(2, 0.06, 1.0)]
    return schedule.tasks(policies, [make_problem()], conditions, seeds)


def test_all_policies_have_one_seed_before_any_has_the_next() -> None:
    tasks = make_tasks(seeds=3)
    assert len({task.key for task in tasks}) == len(tasks) == 12
    assert [task.seed for task in tasks] == sorted(task.seed for task in tasks)


def made_run(task: Task, at: float = 0.5) -> Run:
    return Run(task.key, [Improvement(at, 2 * at, 0.5), Improvement(at + 0.1, 2 * at, -1.0)], 9, 3, 1.5)


def test_runs_are_known_again_after_a_stop_that_cut_a_line_short(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "runs.jsonl"
    tasks = make_tasks()
    Store(path).add(made_run(tasks[0]))
    with path.open("a") as file:
        file.write('{"key": {"pol')
    again = Store(path)
    assert again.runs == {tasks[0].key: made_run(tasks[0])}
    again.add(made_run(tasks[1]))
    assert set(Store(path).runs) == {task.key for task in tasks[:2]}
    assert json.loads(path.read_text().splitlines()[0])["key"]["policy"] == tasks[0].policy.name


def test_code_is_known_by_what_it_does_and_not_by_how_it_reads() -> None:
    plain = "def f(x):\n    return x + 1\n"
    assert _bare(plain) == _bare('"""Text."""\n\n# why\ndef f(x):\n    """More."""\n    return x + 1\n')
    assert _bare(plain) != _bare("def f(x):\n    return x + 2\n")


def test_means_have_standard_errors_and_misses() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0], [False, False, False, True])
    assert (found.mean, found.missed, found.seeds) == (2.5, 0.25, 4)
    assert found.error == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert str(found) == "2.50 ± 0.65 (25% missed)"
    assert str(mean([1.0], [False])) == "1.00"


def test_ratios_are_paired_by_seed() -> None:
    ratio = paired({0: 2.0, 1: 8.0, 2: 99.0}, {1: 2.0, 0: 1.0, 3: 1.0})
    assert ratio is not None
    assert ratio.ratio == pytest.approx(math.sqrt(8))
    assert ratio.z == pytest.approx(np.log([2, 4]).mean() / (np.log([2, 4]).std(ddof=1) / math.sqrt(2)))
    assert paired({0: 1.0}, {1: 1.0}) is None
    same = paired({0: 3.0, 1: 5.0}, {0: 3.0, 1: 5.0})
    assert same is not None
    assert str(same) == "1.00 (z +0.0)"
    both = pooled([ratio, same])
    assert both.ratio == pytest.approx(8**0.25)
    assert both.z == pytest.approx(math.log(both.ratio) / (ratio.log_error / 2))


def test_regret_goes_from_the_typical_configuration_to_the_best() -> None:
    made = Run("", [Improvement(1.0, 1.0, 3.0), Improvement(2.0, 2.0, 1.0)], 2, 2, 0.0)
    assert regret(made, best=1.0, typical=5.0, times=[0.0, 0.99, 1.0, 1.99, 2.0, 9.0]) == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]


def test_the_report_works_with_what_is_finished(tmp_path: Path) -> None:
    problem = make_problem()
    policies = [next(p for p in POLICIES if p.name == name) for name in (REFERENCE, "asha + random")]
    condition = Condition(2, 0.0, 4.0)
    tasks = schedule.tasks(policies, [problem], [condition], 2)
    store = Store(tmp_path / "runs.jsonl")
    for task, at in zip(tasks, (0.5, 1.0, 0.25), strict=False):  # the last one of four is missing
        store.add(made_run(task, at))
    cells = report.gather(tasks, store)
    times, ratios, rivals = report.tables(cells, [problem])
    assert [row[:3] for row in times.rows] == [
        (REFERENCE, "0.47 ± 0.12", "0.47"),  # (0.6 + 0.35) / 2: when the target was reached
        ("asha + random", "1.10", "1.10"),
    ]
    assert "1 to 2 (not all runs are made) seeds" in times.note
    assert [row[:3] for row in ratios.rows] == [("asha + random", "1.83", "1.83")]
    assert [row[0] for row in rivals.rows] == [REFERENCE, "asha + random"]


def test_a_policy_that_breaks_is_told_and_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console  # noqa: PLC0415  # after capsys has taken over stdout

    broken = Policy("broken", "with_halvard", {"sampler": "none-such", "scheduler": "none"}, "halvard", "")
    works = Policy("works", "with_halvard", {"sampler": "random", "scheduler": "none"}, "halvard", "")
    tasks = schedule.tasks([broken, works], [make_problem()], [Condition(2, 0.0, 1.0)], 1)
    store = Store(tmp_path / "runs.jsonl")
    assert schedule.make(tasks, store, 1, Console()) == 1
    assert set(store.runs) == {tasks[1].key}
    assert "none-such" in capsys.readouterr().out
    assert schedule.make(tasks[1:], store, 1, Console()) == 0  # nothing is left to do


def test_policies_are_distinct_and_their_modules_exist() -> None:
    assert len({policy.name for policy in POLICIES}) == len(POLICIES)
    assert REFERENCE in {policy.name for policy in POLICIES}
    assert all(find_spec(f"benchmarks.quality.{policy.module}") for policy in POLICIES)
    assert all(policy.fair for policy in POLICIES)


def test_an_outcome_of_equal_seeds_is_equal() -> None:
    problem, condition = make_problem(), Condition(4, 0.0, 2.0)

    def once() -> Outcome:
        return with_halvard.run(problem, condition, 5, sampler="random", scheduler="asha")

    assert once().improvements == once().improvements

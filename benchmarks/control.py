"""What control trials tell, and what they cost: estimates against the truth, on tables of real learning curves.

Of a replay the truth is known: the table has the whole curve of every trial that was stopped.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.problem import UNIT, Problem, read_problems
from benchmarks.results import Scale, Table
from halvard.control import Share, Stop, share, stops
from halvard.simulate.conditions import Conditions
from halvard.simulate.result import Simulation
from halvard.simulate.world import simulate
from halvard.study import Study

TABLES = Path(__file__).parent / "tables"
CONTROL = 0.1
WORKERS = 16
TRIALS = 300
CAP = 5.0  # in full trainings
SEEDS_A_ROUND = 20


@dataclass(frozen=True, slots=True)
class Replay:
    """What a study with controls tells of itself, and what is true of all that its draws stand for."""

    known: Share | None
    truth: float
    drawn: int


def measure(scale: Scale) -> Iterator[Table]:
    """Yields two tables: how good the estimates are, and what the controls cost."""
    seeds = range(3 if scale.quick else SEEDS_A_ROUND * scale.rounds)
    problems = read_problems(TABLES)[: 1 if scale.quick else None]
    replays = {problem.name: [replay(problem, seed) for seed in seeds] for problem in problems}
    asha = f"asha with control {CONTROL} and random, {WORKERS} workers, {len(seeds)} seeds"
    yield Table(
        "What early stopping loses: estimate and truth",
        ("table", "drawn", "truth", "estimate - truth", "90 % intervals that cover it", "their width"),
        [(name, *_accuracy(ran)) for name, ran in replays.items()],
        f"{asha}, {TRIALS} trials; ± standard errors. Goal: at least 90 % of the intervals cover the truth.",
        {f"{name}: estimate, low, high, truth, drawn": _raw(ran) for name, ran in replays.items()},
    )
    prices = {problem.name: [price(problem, seed) for seed in seeds] for problem in problems}
    yield Table(
        "What control trials cost: time until a trial finishes with a value of the top 1 % (quant: 3 %)",
        ("table", "without", "with", "difference"),
        [(name, *_prices(ran)) for name, ran in prices.items()],
        f"{asha}, beside the same without control; in full trainings R, {CAP:g} R where none had by then; "
        "± standard errors, of the difference that of pairs.",
        {f"{name}: with, without": [list(one) for one in ran] for name, ran in prices.items()},
    )


def replay(problem: Problem, seed: int) -> Replay:
    simulation = simulate(study(problem, seed, CONTROL, {"trials": TRIALS}), problem.table, Conditions(workers=WORKERS))
    found = stops_of(simulation)
    return Replay(share(found), truth(simulation, found, problem), sum(len(stop.draws) for stop in found))


def price(problem: Problem, seed: int) -> tuple[float, float]:
    """When the target was reached with controls and without, in full trainings; the cap where it was not."""
    limits = {"trials": len(problem.table.u), "duration": f"{round(CAP * UNIT)}s"}
    first, second = (
        simulate(study(problem, seed, control, limits), problem.table, Conditions(workers=WORKERS)).reached(
            problem.target
        )
        for control in (CONTROL, 0.0)
    )
    return first.at / UNIT if first else CAP, second.at / UNIT if second else CAP


def study(problem: Problem, seed: int, control: float, limits: dict[str, Any]) -> Study:
    spec = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": [{"name": name, "float": {"min": 0.0, "max": 1.0}} for name in problem.table.names],
        "scheduler": {"asha": {"maxBudget": problem.steps, "control": control}},
        "sampler": {"random": {}},
        "limits": limits,
        "seed": seed,
        "template": {"spec": {"containers": [{"name": "trainer"}]}},
    }
    return Study.model_validate({"name": problem.name, "spec": spec})


def stops_of(simulation: Simulation) -> list[Stop]:
    asha = simulation.study.spec.scheduler.asha
    assert asha is not None
    return stops(asha, "minimize", [one.trial for one in simulation.trials])


def truth(simulation: Simulation, found: Sequence[Stop], problem: Problem) -> float:
    """The share stopped too soon of all that the draws stand for, as the table has it."""
    rows = {one.trial.index: one.row for one in simulation.trials}
    above = dict(zip(simulation.budgets, simulation.budgets[1:], strict=False))
    good = [
        (float(problem.table.value[rows[index], above[stop.budget] - 1]), index) <= stop.bar
        for stop in found
        if stop.bar is not None
        for draw in stop.draws
        for index in draw.stood_for
    ]
    return sum(good) / len(good) if good else math.nan


def _accuracy(ran: Sequence[Replay]) -> tuple[str, ...]:
    known = [(one.known, one.truth) for one in ran if one.known is not None]
    covered = sum(estimated.low <= true <= estimated.high for estimated, true in known)
    return (
        f"{statistics.mean(one.drawn for one in ran):.1f}",
        f"{statistics.mean(true for _, true in known):.1%}",
        f"{mean([100 * (estimated.estimate - true) for estimated, true in known])} %",
        f"{covered} of {len(known)}",
        f"{statistics.mean(estimated.high - estimated.low for estimated, _ in known):.0%}",
    )


def _raw(ran: Sequence[Replay]) -> list[list[float]]:
    return [
        [one.known.estimate, one.known.low, one.known.high, one.truth, one.drawn]
        for one in ran
        if one.known is not None
    ]


def _prices(ran: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    return (
        f"{mean([without for _, without in ran])} R",
        f"{mean([with_ for with_, _ in ran])} R",
        f"{mean([with_ - without for with_, without in ran])} R",
    )


def mean(values: Sequence[float]) -> str:
    """Returns the mean with its standard error."""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}"

"""What a simulated study would cost and bring, for people: how it compares, and its ladder."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table as Columns
from rich.text import Text

from halvard.local.display import clock, rungs
from halvard.local.narrate import number
from halvard.simulate.conditions import Conditions
from halvard.simulate.result import Improvement, Simulation
from halvard.simulate.table import Table


def page(simulations: Sequence[Simulation], table: Table, conditions: Conditions) -> Group:
    """Returns what to print; the first simulation is the user's study, the others what it is compared with."""
    study = simulations[0].study
    heading = Text.assemble(
        (study.name, "bold"),
        f"  {conditions.workers} workers, {_time(conditions.start_up)} start-up; "
        f"a full training takes {_time(table.full_training)} (median)",
    )
    outcome = next(c.message for c in study.status.conditions if c.type == study.status.state)
    return Group(heading, Text(outcome, "dim"), "", rungs(study.status), "", _compared(simulations))


def _compared(simulations: Sequence[Simulation]) -> Columns:
    columns = Columns(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    columns.add_column("")
    for simulation in simulations:
        columns.add_column(_scheduler(simulation), justify="right")
    facts = [[*_cost(simulation), *_quality(simulation, simulations[0].best)] for simulation in simulations]
    for row in zip(*facts, strict=True):
        columns.add_row(Text(row[0][0]), *(text for _, text in row))
    return columns


def _cost(simulation: Simulation) -> list[tuple[str, str]]:
    counts, busy = simulation.study.status.trials, simulation.busy()
    return [
        ("trials", str(counts.total)),
        ("trained to the full budget", str(counts.complete)),
        ("wall-clock", _time(simulation.seconds)),
        (_unit(simulation), _hours(simulation, sum(busy.values()))),
        *((f"  {outcome}", _hours(simulation, seconds)) for outcome, seconds in busy.items()),
    ]


def _quality(simulation: Simulation, wanted: Improvement | None) -> list[tuple[str, str]]:
    """The best value, and what it takes until there is one as good as the wanted."""
    best, metric = simulation.best, simulation.study.spec.objective.metric
    facts = [(f"best {metric}", number(best.value) if best else "none"), *_when(simulation, "finished", best)]
    if wanted:
        facts += _when(simulation, f"{number(wanted.value)} or better", simulation.reached(wanted.value))
    return facts


def _when(simulation: Simulation, what: str, reached: Improvement | None) -> list[tuple[str, str]]:
    return [
        (f"{what} after", _time(reached.at) if reached else "never"),
        (f"  {_unit(simulation)} by then", _hours(simulation, reached.busy) if reached else ""),
    ]


def _unit(simulation: Simulation) -> str:
    return "GPU-hours" if simulation.gpus else "worker-hours"


def _hours(simulation: Simulation, seconds: float) -> str:
    return f"{seconds * (simulation.gpus or 1) / 3600:.4g}"


def _scheduler(simulation: Simulation) -> str:
    return next(name for name, value in simulation.study.spec.scheduler if value is not None)


def _time(seconds: float) -> str:
    return clock(seconds) if seconds >= 60 else f"{seconds:.3g} s"  # noqa: PLR2004  # a minute

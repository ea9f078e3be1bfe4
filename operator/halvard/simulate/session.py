"""`halvard simulate` from the manifest and the table to what is printed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from halvard.invalid import InvalidStudy
from halvard.local.session import BAD_INPUT, FINISHED, UnrunnableError, read
from halvard.simulate.conditions import Conditions
from halvard.simulate.files import read_table, write_lines
from halvard.simulate.page import page
from halvard.simulate.table import Table, TableError
from halvard.simulate.world import simulate
from halvard.study import FullBudget, RandomSampler, Sampler, Scheduler, Study, StudySpec
from halvard.tuner import Tuner


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was told; `start_up` turns the seconds of a full training into those of a start-up.

    None is: as many workers as the study's parallelism, durations as measured, checkpoints where the study has a claim
    for them, no file.
    """

    table: Path
    workers: int | None
    start_up: Callable[[float], float]
    full_training: float | None
    stragglers: float
    dropped: float
    lost_every: float
    checkpoints: bool | None
    hot: bool
    seed: int
    output: Path | None

    def conditions(self, spec: StudySpec, table: Table) -> Conditions:
        """Returns the conditions of this study on this table; raises ValueError where they make no sense."""
        return Conditions(
            workers=spec.parallelism if self.workers is None else self.workers,
            start_up=self.start_up(table.full_training),
            stragglers=self.stragglers,
            dropped=self.dropped,
            lost_every=self.lost_every,
            checkpoints=spec.checkpoint is not None if self.checkpoints is None else self.checkpoints,
            hot=self.hot,
            seed=self.seed,
        )


def run(path: Path, options: Options) -> int:
    """Simulates the study of this manifest, prints what came of it and returns the exit code."""
    console = Console(highlight=False)
    try:
        study = Study.from_manifest(read(path))
        table = read_table(options.table)
        if options.full_training is not None:
            table = table.scaled(options.full_training)
        conditions = options.conditions(study.spec, table)
        with console.status("simulating"):
            simulations = [simulate(version, table, conditions) for version in versions(study)]
        if options.output is not None:
            write_lines(options.output, simulations, conditions)
    except (InvalidStudy, UnrunnableError, TableError, ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(str(error), soft_wrap=True, markup=False)
        return BAD_INPUT
    if (trials := study.spec.limits.trials) and trials > len(table.u):
        console.print(f"note: limits.trials is {trials}, but the table has {len(table.u)} rows: no more are simulated")
    console.print(page(simulations, table, conditions))
    return FINISHED


def versions(study: Study) -> list[Study]:
    """Returns the study, and what it is compared with: a random search that trains every trial to the full budget."""
    if study.spec.scheduler.none is not None:
        return [study]
    full = {
        "scheduler": Scheduler(none=FullBudget(budget=Tuner(study.spec).max_budget)),
        "sampler": Sampler(random=RandomSampler()),
        "initial_points": (),
    }
    return [study, study.model_copy(update={"spec": study.spec.model_copy(update=full)})]

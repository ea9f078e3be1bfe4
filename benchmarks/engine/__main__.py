"""`python -m benchmarks.engine`: measures decisions and memory, prints tables, keeps every measurement."""

import gc
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import page
from benchmarks.engine import report
from benchmarks.engine.contenders import CONTENDERS, Contender, spec_of
from benchmarks.engine.engine import Limits, Measured, measure
from benchmarks.engine.memory import bytes_a_trial
from benchmarks.engine.with_halvard import history
from halvard.trial import Trial

SIZES = (1_000, 10_000, 100_000)
LIMITS, SHORT_LIMITS = Limits(fewest=10, most=300, seconds=1.0), Limits(fewest=10, most=100, seconds=0.5)
WARM_UP = Limits(fewest=3, most=3, seconds=0.0)
IN_MEMORY, SHORT_IN_MEMORY = 10_000, 1_000
PACKAGES = ("halvard", "optuna", "ray", "syne-tune", "numpy")


@click.command()
@click.option("--rounds", type=click.IntRange(1), help="How often all is measured.  [default: 3; short: 1]")
@click.option("--short", is_flag=True, help="Under two minutes on a core that is free: no more than 10,000 trials.")
@click.option("--write", is_flag=True, help="Put the tables into docs/benchmarks.md.")
def main(rounds: int | None, *, short: bool, write: bool) -> None:
    """Measures what a decision costs, beside Optuna, Ray Tune and Syne Tune."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    sizes, rounds = SIZES[: 2 if short else None], rounds or (1 if short else 3)
    try:
        circumstances = page.circumstances(PACKAGES)
    except PackageNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed here: use `make bench-engine`") from error
    console.print(circumstances)
    cells: defaultdict[tuple[str, int], list[Measured]] = defaultdict(list)
    remembering = report.of_group("memory")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=rounds * len(sizes) * len(CONTENDERS) + len(remembering))
        for seed in range(rounds):
            for size in sizes:
                for contender, found in one_round(size, seed, SHORT_LIMITS if short else LIMITS):
                    cells[contender.name, size].append(found)
                    progress.update(task, advance=1, description=f"round {seed + 1}, {size:,} trials")
        trials = history(spec_of("asha", "random", 0), SHORT_IN_MEMORY if short else IN_MEMORY)
        memory = {}
        for contender in remembering:
            memory[contender.name] = bytes_a_trial(contender, trials, 0)
            progress.update(task, advance=1, description="memory")
    tables = report.tables(cells, memory, sizes)
    for table in tables:
        console.print(page.for_terminal(table))
    console.print(f"every measurement: {page.keep('engine', tables, circumstances)}")
    if write:
        page.write("engine", tables, f"{circumstances}\nRounds: {rounds}, of seeds 0 to {rounds - 1}.")


def one_round(size: int, seed: int, limits: Limits) -> Iterator[tuple[Contender, Measured]]:
    """Yields what decisions of each contender take that knows so many trials, the same for all with one scheduler."""
    for scheduler in dict.fromkeys(each.history for each in CONTENDERS):
        trials = history(spec_of(scheduler, "random", seed), size)
        for contender in CONTENDERS:
            if contender.history == scheduler:
                yield contender, measured(contender, trials, seed, limits)


def measured(contender: Contender, trials: Sequence[Trial], seed: int, limits: Limits) -> Measured:
    gc.collect()
    gc.freeze()  # what is ours is not looked at when an engine's allocations start a collection
    try:
        engine = contender.make(trials, seed)
        measure(engine, seed, WARM_UP)
        return measure(engine, seed, limits)
    finally:
        gc.unfreeze()


if __name__ == "__main__":
    main()

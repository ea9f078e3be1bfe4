"""`python -m benchmarks.quality`: makes the runs that are missing, keeps them all, and prints what they say."""

import os
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import page
from benchmarks.quality import plot, report, schedule
from benchmarks.quality.policies import POLICIES
from benchmarks.quality.problem import CONDITIONS, read_problems
from benchmarks.quality.runs import Store
from halvard.simulate.table import TableError

TABLES = page.ROOT / "benchmarks" / "tables"
PICTURE = page.ROOT / "docs" / "benchmarks-quality.png"
SEEDS, SHORT_SEEDS = 20, 2
PACKAGES = ("halvard", "optuna", "ray", "syne-tune", "numpy")


@click.command()
@click.option("--tables", type=click.Path(path_type=Path), default=TABLES, help="A folder of npz files.")
@click.option("--only", multiple=True, help="Policies whose name has this in it; may be given several times.")
@click.option("--seeds", type=click.IntRange(1), help=f"How many.  [default: {SEEDS}; short: {SHORT_SEEDS}]")
@click.option("--processes", type=click.IntRange(1), default=os.cpu_count() or 1, help="Runs at a time.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=page.RAW / "quality.jsonl", help="Where they are kept."
)
@click.option("--short", is_flag=True, help="Under 15 minutes on two cores: 16 workers, no start-up, few seeds.")
@click.option("--report", "report_only", is_flag=True, help="Make no runs, say what those that are kept say.")
@click.option("--write", is_flag=True, help="Put the tables into docs/benchmarks.md, and the plot beside it.")
def main(
    tables: Path,
    only: tuple[str, ...],
    seeds: int | None,
    processes: int,
    runs: Path,
    *,
    short: bool,
    report_only: bool,
    write: bool,
) -> None:
    """Measures how long it takes to finish a good trial, beside Optuna, Ray Tune and Syne Tune.

    Stop it whenever you like: finished runs are kept, and the next time it goes on with the others.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        problems = read_problems(tables)
    except TableError as error:
        raise click.ClickException(str(error)) from error
    policies = [policy for policy in POLICIES if not only or any(text in policy.name for text in only)]
    if not policies:
        raise click.UsageError(f"--only {' '.join(only)}: there is none of {', '.join(each.name for each in POLICIES)}")
    conditions = CONDITIONS[:1] if short else CONDITIONS
    circumstances = f"{page.circumstances(PACKAGES)} Commit {_commit()}."
    store = Store(runs)
    wanted = schedule.tasks(policies, problems, conditions, seeds or (SHORT_SEEDS if short else SEEDS))
    failed = 0
    try:
        failed = 0 if report_only else schedule.make(wanted, store, processes, console)
    except KeyboardInterrupt:
        console.print("stopped; this is what the finished runs say")
    cells = report.gather(wanted, store)
    if not cells:
        raise click.ClickException(f"{runs}: there is no run of this code yet")
    shown = list(report.tables(cells, problems))
    for table in shown:
        console.print(page.for_terminal(table))
    console.print(f"good: {report.target_text(problems)}", f"every run: {runs}", sep="\n")
    picture = PICTURE if write else runs.with_suffix(".png")
    plot.draw(picture, cells, problems)
    console.print(f"regret over time: {picture}")
    if write:
        plotted = f"![Simple regret over time, 1: the median configuration, 0: the best]({picture.name})"
        page.write("quality", shown, f"{circumstances} Good is {report.target_text(problems)}.\n\n{plotted}")
    sys.exit(1 if failed else 0)


def _commit() -> str:
    """The commit that was checked out, `+` where files were changed since."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    answer = subprocess.run(command, cwd=page.ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()

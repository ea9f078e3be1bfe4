"""`python -m benchmarks [NAME ...]`: measures, prints tables, and keeps every measurement under `build/bench/`."""

import importlib
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import page
from benchmarks.results import Scale

NAMES = ("control", "operator")
sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the lab is


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--rounds", type=click.IntRange(1), help="How often each figure is measured.  [default: 3; quick: 1]")
@click.option("--quick", is_flag=True, help="Little of everything, to see that it works.")
@click.option("--write", is_flag=True, help="Put the tables into docs/benchmarks.md.")
def main(names: tuple[str, ...], rounds: int | None, *, quick: bool, write: bool) -> None:
    """Measures what Halvard costs; all of it, or what is named."""
    console = Console(width=150)
    scale = Scale(rounds or (1 if quick else 3), quick)
    circumstances = page.circumstances()
    console.print(circumstances)
    for name in names or NAMES:
        tables = []
        for table in importlib.import_module(f"benchmarks.{name}").measure(scale):
            console.print(page.for_terminal(table))
            tables.append(table)
        console.print(f"every measurement: {page.keep(name, tables, circumstances)}")
        if write:
            page.write(name, tables, circumstances)


if __name__ == "__main__":
    main()

"""The command line: `halvard run` on this machine, `halvard operator` in a cluster."""

import sys
from pathlib import Path

import click


@click.group()
@click.version_option(package_name="halvard")
def main() -> None:
    """Tune hyperparameters by asynchronous successive halving."""


@main.command()
@click.argument("study", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default="results",
    show_default=True,
    help="Where to keep the directory of results, named after the study.",
)
def run(study: Path, results: Path) -> None:
    """Run STUDY, a manifest, on this machine alone; the same command goes on where it was."""
    from halvard.local.session import run as run_here  # noqa: PLC0415  # the operator needs none of it

    sys.exit(run_here(study, results))


@main.command()
def operator() -> None:
    """Run the operator in a cluster."""
    from halvard.operator import main as run_operator  # noqa: PLC0415  # kopf and kubernetes are slow to import

    run_operator()

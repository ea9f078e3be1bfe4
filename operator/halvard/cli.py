"""The command line: `halvard run` on this machine, `halvard operator` and `halvard check` in a cluster."""

import asyncio
import re
import sys
from pathlib import Path

import click

from halvard import __version__


@click.group()
@click.version_option(__version__)
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


def seconds(_context: click.Context, _option: click.Parameter, text: str) -> float:
    """Returns a duration such as `1m30s` in seconds."""
    from halvard.ending import duration_seconds  # noqa: PLC0415  # it brings pydantic along

    if not re.fullmatch("([0-9]+m)?([0-9]+s)?", text) or not duration_seconds(text):
        raise click.BadParameter(f'"{text}" is no duration such as 90s or 1m30s')
    return duration_seconds(text)


@main.command()
@click.option("--namespace", required=True, help="Where to run the study: a namespace that the operator serves.")
@click.option("--image", required=True, help="The collector's image; the two trials run it too.")
@click.option("--timeout", default="2m", show_default=True, callback=seconds, help="How long the study may take.")
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="KUBECONFIG",
    help="Which cluster; in a Pod, its own.",
)
def check(namespace: str, image: str, timeout: float, kubeconfig: Path | None) -> None:
    """See that studies run in a cluster: two small trials, no GPU."""
    from halvard.check import CheckFailed  # noqa: PLC0415  # kubernetes is slow to import
    from halvard.check import check as run_check  # noqa: PLC0415

    try:
        asyncio.run(run_check(kubeconfig, namespace, image, timeout, click.echo))
    except CheckFailed as error:
        raise click.ClickException(str(error)) from error

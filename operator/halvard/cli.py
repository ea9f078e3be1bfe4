"""The command line: `halvard run`, `replay`, `simulate` on a machine, `halvard operator` and `check` in a cluster."""

import asyncio
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np  # noqa: F401  # loaded, so that its threads can be limited
from threadpoolctl import threadpool_limits

from halvard import __version__


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Tune hyperparameters by asynchronous successive halving."""
    # matrices of a few hundred rows: several threads only get in each other's way, and in that of the trainers
    threadpool_limits(1, user_api="blas")


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
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--explain",
    metavar="[TRIAL]",
    is_flag=False,
    flag_value="",
    help="Print why each decision fell as it did, of all trials or of one (its name or number).",
)
def replay(directory: Path, explain: str | None) -> None:
    """Make the decisions of a study again from its records in DIRECTORY, and see that they are the same."""
    from halvard.local.replay import run as replay_here  # noqa: PLC0415  # the operator needs none of it

    sys.exit(replay_here(directory, explain))


@main.command()
def operator() -> None:
    """Run the operator in a cluster."""
    from halvard.operator import main as run_operator  # noqa: PLC0415  # kopf and kubernetes are slow to import

    run_operator()


def seconds(_context: click.Context, _option: click.Parameter, text: str) -> float:
    """Returns a duration such as `1m30s` in seconds."""
    return _duration(text, "([0-9]+m)?([0-9]+s)?", "90s or 1m30s")


def _duration(text: str, pattern: str, right: str) -> float:
    from halvard.ending import duration_seconds  # noqa: PLC0415  # it brings pydantic along

    if not re.fullmatch(pattern, text) or not duration_seconds(text):
        raise click.BadParameter(f'"{text}" is no duration such as {right}')
    return duration_seconds(text)


@main.command()
@click.option("--namespace", required=True, help="Where to run the study: a namespace that the operator serves.")
@click.option("--image", required=True, help="The collector's image; the two trials run it too.")
@click.option(
    "--pull-secret",
    "pull_secrets",
    multiple=True,
    help="A Secret by which the image is pulled; may be repeated.",
)
@click.option("--timeout", default="2m", show_default=True, callback=seconds, help="How long the study may take.")
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="KUBECONFIG",
    help="Which cluster; in a Pod, its own.",
)
def check(namespace: str, image: str, pull_secrets: tuple[str, ...], timeout: float, kubeconfig: Path | None) -> None:
    """See that studies run in a cluster: two small trials, no GPU."""
    from halvard.check import CheckFailed  # noqa: PLC0415  # kubernetes is slow to import
    from halvard.check import check as run_check  # noqa: PLC0415
    from halvard.kube import NoCluster  # noqa: PLC0415

    try:
        asyncio.run(run_check(kubeconfig, namespace, image, timeout, click.echo, pull_secrets=pull_secrets))
    except (CheckFailed, NoCluster) as error:
        raise click.ClickException(str(error)) from error


def long_seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Returns a duration such as `12h` or `1h30m` in seconds."""
    from halvard.study import DURATION  # noqa: PLC0415  # it brings pydantic along

    return None if text is None else _duration(text, DURATION, "90s, 30m or 1h30m")


def share_or_seconds(_context: click.Context, _option: click.Parameter, text: str) -> Callable[[float], float]:
    """Returns what turns a whole into a share of it such as `6%`, or into a duration such as `30s` whatever it is."""
    from halvard.ending import duration_seconds  # noqa: PLC0415  # it brings pydantic along
    from halvard.study import DURATION  # noqa: PLC0415

    if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text):
        share = float(text.removesuffix("%")) / 100
        return lambda whole: share * whole
    if text and re.fullmatch(DURATION, text):
        return lambda _whole: duration_seconds(text)
    raise click.BadParameter(f'"{text}" is neither a duration such as 30s nor a share such as 6%')


@main.command()
@click.argument("study", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--table",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Recorded learning curves, an npz file (see docs/simulate.md).",
)
@click.option("--workers", type=click.IntRange(min=1), help="Pods at a time.  [default: the study's parallelism]")
@click.option(
    "--full-training",
    callback=long_seconds,
    help="How long the median full training is to take, such as 2h.  [default: as long as in the table]",
)
@click.option(
    "--start-up",
    default="0s",
    show_default=True,
    callback=share_or_seconds,
    help="From a Pod's place to its first step: such as 30s, or 6% of a full training.",
)
@click.option(
    "--stragglers",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="How much legs differ in speed: the sigma of a lognormal factor on each leg's duration.",
)
@click.option(
    "--dropped",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="The probability of a leg to be lost and to run again.",
)
@click.option(
    "--lost-every", callback=long_seconds, help="The mean time a worker lasts, such as 24h.  [default: for ever]"
)
@click.option(
    "--checkpoints/--no-checkpoints",
    default=None,
    help="Whether a leg in a new Pod goes on from the last step.  [default: where the study has spec.checkpoint]",
)
@click.option(
    "--hot/--no-hot", default=True, show_default=True, help="Whether a trial promoted at its report stays in its Pod."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of everything random but the study itself.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write everything that happened, as JSON lines."
)
def simulate(study: Path, lost_every: float | None, **options: Any) -> None:
    """See what STUDY, a manifest, would cost: on recorded learning curves, in virtual time."""
    from halvard.simulate.session import Options  # noqa: PLC0415  # numpy is not needed elsewhere
    from halvard.simulate.session import run as run_simulated  # noqa: PLC0415

    sys.exit(run_simulated(study, Options(**options, lost_every=lost_every or math.inf)))

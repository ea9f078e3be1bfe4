"""`python -m chaos [NAME ...]`: rounds of trouble for operators, side by side, and what came of them."""

import asyncio
import shlex
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chaos import apiserver, at_once, kills, leaders
from chaos.promised import missing
from chaos.report import Report, Scenario
from cluster.conftest import install
from lab.control_plane import ControlPlane

MODULES = (kills, at_once, apiserver, leaders)
SCENARIOS = {scenario.name: scenario for module in MODULES for scenario in module.SCENARIOS}
NO_MORE_ROUNDS = 90.0  # seconds before time is up


@dataclass
class Sum:
    """What came of the rounds of a scenario so far."""

    report: Report = field(default_factory=Report)
    seeds: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)


class Run:
    """All rounds of a run."""

    def __init__(self, scenarios: Sequence[Scenario], rounds: int | None, seed: int, console: Console) -> None:
        """`rounds`: of each scenario, if not as many as it says itself; their seeds count up from `seed`."""
        self._console = console
        self._todo = interleaved([(scenario, rounds or scenario.rounds) for scenario in scenarios], seed)
        self._planned = {scenario.name: rounds or scenario.rounds for scenario in scenarios}
        self._alone = asyncio.Lock()
        self._control_planes = ExitStack()
        self._started: dict[bool, ControlPlane] = {}
        self.sums = defaultdict[str, Sum](Sum)

    async def go(self, at_once: int, seconds: float) -> None:
        """Takes round after round, `at_once` of them side by side, as long as there is time."""
        until = time.monotonic() + seconds

        async def work() -> None:
            for scenario, seed in self._todo:
                if time.monotonic() > until - min(NO_MORE_ROUNDS, seconds / 2):
                    return
                await self._round(scenario, seed)

        with self._control_planes:
            await asyncio.gather(*(work() for _ in range(at_once)))

    async def _round(self, scenario: Scenario, seed: int) -> None:
        begun = time.monotonic()
        try:
            if scenario.shares:
                report = await scenario.run(await self._control_plane(shared=True), seed)
            else:
                async with self._alone:
                    report = await scenario.run(await self._control_plane(shared=False), seed)
        except Exception:  # noqa: BLE001  # whatever it is, it must not happen, and other rounds go on
            report = Report(violations=(traceback.format_exc(),))
        total = self.sums[scenario.name]
        total.report += report
        total.seeds.append(seed)
        if report.violations:
            total.broken.append(seed)
        took, faults = time.monotonic() - begun, report.faults.total()
        self._console.print(
            f"{scenario.name} {seed}: {faults} faults, {len(report.violations)} violations, {took:.0f} s"
        )
        for violation in report.violations:
            self._console.print(f"  {violation}", markup=False, style="red")

    async def _control_plane(self, *, shared: bool) -> ControlPlane:
        """The one that rounds share, or that of those that break it; started when it is first asked for."""
        if shared not in self._started:
            self._started[shared] = started = self._control_planes.enter_context(ControlPlane())
            install(started)
        return self._started[shared]

    # --- what came of it ------------------------------------------------------------------------------------------

    def summary(self) -> Table:
        """A row a scenario."""
        table = Table(title="What befell operators, and what came of it")
        columns = ("scenario", "rounds", "seeds", "faults", "trials", "retries", "checks", "violations")
        for column in columns:
            table.add_column(column, justify="left" if column == "scenario" else "right")
        for name, planned in self._planned.items():
            total = self.sums[name]
            report, seeds = total.report, total.seeds
            span = f"{min(seeds)}-{max(seeds)}" if seeds else ""
            counts = (report.faults.total(), report.trials, report.retries, report.checks, len(report.violations))
            table.add_row(name, f"{len(seeds)} of {planned}", span, *(f"{count:,}" for count in counts))
        return table

    def faults(self) -> Table:
        """A row a kind of fault, and then one a reason for which operators ended by themselves."""
        table, whole = Table("fault", title="Faults by kind"), self.whole()
        table.add_column("times", justify="right")
        for kind, times in (*sorted(whole.faults.items()), *sorted(whole.ends.items())):
            table.add_row(escape(kind), f"{times:,}")
        return table

    def whole(self) -> Report:
        """What came of all rounds together."""
        return sum((total.report for total in self.sums.values()), Report())

    def missing(self) -> list[str]:
        """What a whole run promises, and this one has not done."""
        begun = {name: len(self.sums[name].seeds) for name in self._planned}
        return [*missing(self._planned, begun, self.whole().faults)]

    def again(self) -> Iterator[str]:
        """Commands that repeat the rounds in which something was not as it should be."""
        for name, total in self.sums.items():
            for seed in total.broken:
                yield f"python -m chaos {shlex.quote(name)} --seed {seed} --rounds 1"


def interleaved(rounds: list[tuple[Scenario, int]], seed: int) -> Iterator[tuple[Scenario, int]]:
    """Every round with its seed, those of each scenario spread evenly over the whole."""
    places = ((place / count, number, place) for number, (_, count) in enumerate(rounds) for place in range(count))
    return iter([(rounds[number][0], seed + place) for _, number, place in sorted(places)])


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(SCENARIOS)))
@click.option("--minutes", default=19.0, show_default=True, help="No round is begun that would take longer.")
@click.option("--rounds", type=click.IntRange(1), help="Of each scenario.  [default: as many as belong to it]")
@click.option("--seed", default=0, show_default=True, help="Of the first round of each scenario; the others count up.")
@click.option("--at-once", default=4, show_default=True, help="How many rounds run side by side.")
def main(names: tuple[str, ...], minutes: float, rounds: int | None, seed: int, at_once: int) -> None:
    """Makes trouble for operators of real Studies and checks that nothing comes of it; all kinds, or what is named."""
    console = Console(width=120)
    scenarios = [SCENARIOS[name] for name in dict.fromkeys(names or SCENARIOS)]

    async def go() -> Run:
        run = Run(scenarios, rounds, seed, console)
        await run.go(at_once, 60 * minutes)
        return run

    run = asyncio.run(go())
    console.print(run.faults(), run.summary())
    commands, absent = list(run.again()), [] if names or rounds else run.missing()
    if commands:
        console.print("to repeat:", *commands, sep="\n  ")
    if absent:
        console.print("[red]this was no whole run, there was no time for all of it; missing:", *absent, sep="\n  ")
    sys.exit(bool(commands or absent))


if __name__ == "__main__":
    main()

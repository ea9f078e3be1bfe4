"""What people see while a study runs: a live screen on a terminal, else a plain log."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from halvard.local.narrate import Line, configuration, number
from halvard.model import Value
from halvard.study import Study
from halvard.study_status import StudyStatus
from halvard.trial import Trial

LINES = 8  # of the latest decisions on the screen
LASTING = ("failed", "warning", "again")
COLOURS = {
    "result": "default",
    "promoted": "bold green",
    "complete": "bold cyan",
    "failed": "bold red",
    "again": "yellow",
    "warning": "yellow",
    "study": "bold",
}


@dataclass(frozen=True, slots=True)
class Running:
    """A trial that trains at this moment; `value` is the last one it reported."""

    trial: Trial
    step: int
    value: Value | None
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Everything the screen shows; `waiting` counts legs that wait for a GPU."""

    study: Study
    status: StudyStatus
    running: tuple[Running, ...]
    waiting: int


class Log:
    """One line for each thing that happened, with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        """Start the clock."""
        self._console = console
        self._began = time.monotonic()

    def tell(self, line: Line) -> None:
        """Print it."""
        elapsed = time.monotonic() - self._began
        self._console.print(f"{elapsed:7.1f}s ", _styled(line), sep="", soft_wrap=True, highlight=False)

    def show(self, _: Callable[[], View]) -> None:
        """The lines have told it."""

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""


class Screen:
    """Rungs, running trials, the best value and the latest decisions, redrawn in place."""

    def __init__(self, console: Console) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self._latest: deque[Line] = deque(maxlen=LINES)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Take over the bottom of the terminal."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back: what remains to be said are the closing words."""
        self._live.stop()

    def tell(self, line: Line) -> None:
        """It joins the latest decisions; trouble stays on the terminal."""
        if line.what in LASTING:
            self._live.console.print(_styled(line), soft_wrap=True)
        self._latest.append(line)

    def show(self, look: Callable[[], View]) -> None:
        """Draw what there is to see."""
        view = look()
        latest = Text("\n").join(_styled(line) for line in self._latest)
        latest.no_wrap, latest.overflow = True, "ellipsis"
        heading = _heading(view, time.monotonic() - self._began)
        self._live.update(Group(heading, "", rungs(view.status), "", _running(view), "", latest), refresh=True)


Display = Log | Screen


def display(console: Console) -> Display:
    """Returns the screen where there is a terminal, else the log."""
    return Screen(console) if console.is_terminal else Log(console)


def rungs(status: StudyStatus) -> Table:
    """Returns the ladder, the highest rung first; columns of what goes wrong only where something does."""
    columns = {"completed": "completed", "promoted": "promoted", "running": "running"}
    columns |= {
        name: title
        for name, title in (("not_finite", "not finite"), ("failed", "failed"))
        if any(getattr(rung, name) for rung in status.rungs)
    }
    table = _table("rung", *columns.values())
    for rung in reversed(status.rungs):
        table.add_row(str(rung.budget), *(str(getattr(rung, name) or "·") for name in columns))
    return table


def _heading(view: View, elapsed: float) -> Text:
    spec, trials, best = view.study.spec, view.status.trials, view.status.best
    limit = f"/{spec.limits.trials}" if spec.limits.trials else ""
    heading = Text.assemble((view.study.name, "bold"), f"  {spec.objective.goal} {spec.objective.metric}")
    heading.append(f"   trials {trials.total}{limit}", "bold")
    heading.append(
        f": {trials.running} running, {trials.paused} paused, {trials.complete} complete, {trials.failed} failed"
    )
    heading.append(f"   {clock(elapsed)}\n")
    if best is None:
        return heading.append("best   none yet", "dim")
    heading.append(f"best   {number(best.value)} at budget {best.budget}", "bold cyan")
    return heading.append(f"   {best.trial}   {configuration(best.parameters)}")


def _running(view: View) -> Table:
    table = _table("training", "step", "", view.study.spec.objective.metric, "")
    table.columns[2].width = 24
    for row in view.running:
        budget = row.trial.spec.budget
        bar = ProgressBar(total=budget, completed=row.step, width=24)
        where = f"GPU {','.join(row.devices)}" if row.devices else ""
        value = "" if row.value is None else number(row.value)
        table.add_row(row.trial.name, f"{row.step}/{budget}", bar, value, where)
    if view.waiting:
        table.add_row(Text(f"{view.waiting} waiting for a GPU", "dim"))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, min_width=14)
    for name in others:
        table.add_column(Text(name), justify="right")
    return table


def _styled(line: Line) -> Text:
    return Text.assemble(
        (f"{line.trial:<14} ", "default"), (f"{line.what:<9} ", COLOURS.get(line.what, "dim")), line.text
    )


def clock(seconds: float) -> str:
    """Returns a span of time as `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""One attempt on this machine: a process in a session of its own, the files it leaves, and how it ends."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from halvard.events import Ended, Event, Fault, Reported
from halvard.faults import METRICS_UNAVAILABLE, NON_ZERO_EXIT
from halvard.local.program import Program
from halvard.local.store import write_durably
from halvard.plan import Verdict
from halvard_trainer.files import replace
from halvard_trainer.reports import Pattern, Report, Tail, parse_line

KILLED = "Killed"
_SIGNALS = {number.value: number.name for number in signal.Signals}
_LAST_WORDS = 400  # characters of the log that go into a fault's message


@dataclass(frozen=True, slots=True)
class Files:
    """What an attempt's directory holds."""

    directory: Path

    @property
    def reports(self) -> Path:
        """Where the trainer appends its reports."""
        return self.directory / "reports.jsonl"

    @property
    def verdict(self) -> Path:
        """Where it reads the answer."""
        return self.directory / "verdict.json"

    @property
    def checkpoints(self) -> Path:
        """Where it saves its checkpoints."""
        return self.directory / "checkpoints"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / "log"

    @property
    def leg(self) -> Path:
        """What was done: see `Leg`."""
        return self.directory / "leg.json"


@dataclass(slots=True)
class Leg:
    """The record of one attempt: where it began, and the budgets it was given (all but the first by hot promotion)."""

    start: int
    budgets: list[int]
    started: float
    devices: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Stores it."""
        write_durably(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Leg":
        """Returns what was stored."""
        return cls(**json.loads(path.read_text()))


class Reports:
    """The reports of one attempt as they come: from `reports.jsonl`, and by a pattern from what it prints."""

    def __init__(self, files: Files, pattern: str | None, start: int) -> None:
        """Begin at the first line; a pattern without a group `step` counts its lines from `start`."""
        self._sources: list[tuple[Tail, Callable[[str], Report | None]]] = [(Tail(files.reports), parse_line)]
        if pattern:
            self._sources.append((Tail(files.log), Pattern(pattern, start).parse))
        self.refused = ""

    def read(self, *, last: bool = False) -> Iterator[Report]:
        """Yields the reports that are new; `refused` says what was wrong with the latest line that is none."""
        for tail, parse in self._sources:
            for line in tail.lines(last=last):
                try:
                    report = parse(line.text) if line.text.strip() else None
                except ValueError as error:
                    self.refused = str(error)
                    continue
                if report is not None:
                    yield report


class Process:
    """A running attempt."""

    def __init__(
        self, key: tuple[int, int], leg: Leg, program: Program, files: Files, *, folder: Path, pattern: str | None
    ) -> None:
        """Start it in `folder`; raises OSError where the command cannot be run."""
        self.key, self.leg, self.files = key, leg, files
        self.step = leg.start
        self._budget = leg.budgets[-1]
        self._reports = Reports(files, pattern, leg.start)
        self._stopped = self._complained = False
        self._last = ""
        self._kill_at: float | None = None
        leg.save(files.leg)  # before the process: the next run finds out about an attempt by its record
        with files.log.open("ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603  # running the user's command is what this is for
                program.arguments,
                cwd=folder,
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def gather(self, now: float, nothing: str) -> Iterator[Event]:
        """Yields what is new: its reports and, once all are told, its end. `nothing` says what was not reported."""
        code = self._popen.poll()  # first, so that everything written before the end is read after it
        for report in self._reports.read(last=code is not None):
            self._advance(report.step)
            self._last = f"; its last report was of {', '.join(report.metrics) or 'nothing'} at step {report.step}"
            yield Reported(*self.key, at=now, report=report)
        if code is not None:
            self.kill()  # what it left behind
            yield Ended(*self.key, at=now, fault=fault(code, self.files.log, nothing + self._last))
        elif self._kill_at is not None and now >= self._kill_at:
            self.kill()

    def complaint(self) -> str:
        """Returns what was wrong with a line that is no report, the first time that there was one."""
        if self._complained or not self._reports.refused:
            return ""
        self._complained = True
        return self._reports.refused

    def answer(self, verdict: Verdict) -> None:
        """Tells it what to do, where that is news: a higher budget, or to stop."""
        if self._stopped or (verdict.stop is None and verdict.budget == self._budget):
            return
        self._stopped = verdict.stop is not None
        self._budget = verdict.budget or self._budget
        said = {name: value for name, value in asdict(verdict).items() if value is not None}
        replace(self.files.verdict, json.dumps(said))

    def _advance(self, step: int) -> None:
        """A step beyond its budget means that a hot promotion has reached it."""
        self.step = max(self.step, step)
        if self.step > self.leg.budgets[-1] and self._budget > self.leg.budgets[-1]:
            self.leg.budgets.append(self._budget)
            self.leg.save(self.files.leg)

    def stop(self, now: float, grace: float) -> None:
        """Asks it to end (SIGTERM to all its processes); `gather` kills it when the grace is over."""
        if self._kill_at is None:
            self._signal_group(signal.SIGTERM)
        self._kill_at = min(now + grace, self._kill_at or now + grace)

    def kill(self) -> None:
        """Ends all its processes at once."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._popen.pid, number)
        except ProcessLookupError:
            return


def fault(code: int, log: Path, nothing: str) -> Fault:
    """Returns why an attempt has no result; it counts, for on one machine there is no infrastructure to blame."""
    if code == 0:
        return Fault(METRICS_UNAVAILABLE, f"the trainer exited with code 0 but {nothing}", counted=True)
    if code > 0:
        return Fault(
            NON_ZERO_EXIT, f"exit code {code}. Its last words: {_last_words(log)}", counted=True, exit_code=code
        )
    name = _SIGNALS.get(-code, f"signal {-code}")
    guess = ", perhaps by the kernel because memory ran out" if name == "SIGKILL" else ""
    return Fault(KILLED, f"killed by {name}{guess}", counted=True, exit_code=128 - code)


def _last_words(log: Path) -> str:
    """The end of what it printed, in whole lines where they are short enough."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4 * _LAST_WORDS))
        text = file.read().decode(errors="replace").strip()
    if len(text) <= _LAST_WORDS:
        return text or "none"
    return text[-_LAST_WORDS:].partition("\n")[2] or text[-_LAST_WORDS:]

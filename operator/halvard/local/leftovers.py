"""What a killed run left behind: processes that would go on training, and attempts whose last reports were not told."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from halvard.events import Ended, Event, Fault, Reported, Started
from halvard.local.process import Files, Leg, Reports
from halvard.trial import Trial

POLL = 0.02  # seconds
LOST = Fault("RunnerKilled", "the run was killed while this attempt was training", counted=False)


def kill_leftovers(root: Path) -> int:
    """Kills every process whose environment says that it trains for the results in `root`; returns how many there were.

    The environment is what tells them, not a recorded number, which might belong to somebody else by now.
    """
    killed = 0
    while found := list(_processes_of(root)):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(POLL)  # until the kernel has taken them away
    return killed


def _processes_of(root: Path) -> Iterator[int]:
    mark = b"HALVARD_REPORTS=" + os.fsencode(root) + b"/"
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or somebody else's
            if any(variable.startswith(mark) for variable in (entry / "environ").read_bytes().split(b"\0")):
                yield int(entry.name)


def last_events(trial: Trial, files: Files, pattern: str | None) -> Iterator[Event]:
    """Yields what an attempt did that is gone now, as far as it was not stored: its start, its reports and its end."""
    key = trial.index, trial.attempt
    leg = Leg.load(files.leg)
    end = max([leg.started, *(file.stat().st_mtime for file in (files.reports, files.log) if file.exists())])
    yield Started(*key, at=leg.started, gpus=len(leg.devices))
    for report in Reports(files, pattern, leg.start).read(last=True):
        if report.step > trial.status.step:
            yield Reported(*key, at=end, report=report)
    yield Ended(*key, at=end, fault=LOST)

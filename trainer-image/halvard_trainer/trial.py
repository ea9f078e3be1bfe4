"""What a training script uses: its parameters, the steps it is to train, and where it reports.

    trial = Trial.from_environment()
    model = load(trial.resume_from) if trial.resume_from else new(trial.parameters, trial.seed)
    for step in trial.steps():
        loss = train(model)
        trial.report(val_loss=loss, checkpoint=lambda path: save(model, path))

There are no signal handlers here: a trial that is interrupted goes on from its last checkpoint. In a distributed
trial every process iterates over `steps()`, and one of them reports.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from halvard_trainer import checkpoints, files, resuming
from halvard_trainer.checkpoints import Save
from halvard_trainer.keeping import Kept
from halvard_trainer.reports import parse_line, termination_message

POLL = 0.02  # seconds between two looks for a verdict
TERMINATION_BYTES = 1024


class Trial:
    """This Pod's (or process's) leg of one trial."""

    parameters: Mapping[str, Any]
    seed: int
    study: str
    name: str
    start: int
    """The step that is already done, 0 at first."""
    budget: int
    """The step to train until, in total; a promotion raises it."""
    resume_from: Path | None
    """The checkpoint to start from, read-only: the one acknowledged last or, where that is damaged, an earlier one."""
    checkpoint_dir: Path | None
    """Where checkpoints go, None where the study keeps none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the contract's variables; see `from_environment`."""
        self.parameters = _json_object(environment, "HALVARD_PARAMETERS")
        self.seed = _whole(environment, "HALVARD_SEED")
        self.study = _text(environment, "HALVARD_STUDY")
        self.name = _text(environment, "HALVARD_TRIAL")
        self.budget = _whole(environment, "HALVARD_BUDGET")
        self.checkpoint_dir = _path(environment, "HALVARD_CHECKPOINT_DIR")
        self.resume_from, self.start = resuming.usable(
            _path(environment, "HALVARD_RESUME_FROM"), _whole(environment, "HALVARD_START")
        )
        self._reports = Path(_text(environment, "HALVARD_REPORTS"))
        self._verdict = Path(_text(environment, "HALVARD_VERDICT"))
        self._timeout = _seconds(environment, "HALVARD_VERDICT_TIMEOUT")
        self._termination_log = Path(environment.get("HALVARD_TERMINATION_LOG", "/dev/termination-log"))
        self._step = self.start
        self._has_result = False
        has_sidecar = "HALVARD_POD" in environment  # the kubelet sets it in every Pod of a trial
        self._kept = Kept(self._verdict.with_name(files.ACKNOWLEDGED) if has_sidecar else None)

    @classmethod
    def from_environment(cls) -> Trial:
        """Return the trial this process runs; RuntimeError names the variable that is missing or wrong."""
        trial = cls(os.environ)
        os.environ["HALVARD_START"] = str(trial.start)  # for programs that this one starts
        os.environ["HALVARD_RESUME_FROM"] = str(trial.resume_from or "")
        return trial

    def steps(self) -> Iterator[int]:
        """Yield the steps to train, from `start` + 1 to the budget, and on where the trial is promoted meanwhile.

        At the budget it waits for the verdict, at most HALVARD_VERDICT_TIMEOUT seconds. A trial that has nothing left
        to train still trains one step, so that it reports.
        """
        while not self._stopped():
            self._step += 1
            yield self._step
            if self._step >= self.budget and not self._promoted():
                return

    def report(self, *, checkpoint: Save | str | None = None, **metrics: SupportsFloat) -> None:
        """Report the metrics of the current step; NaN and infinities are fine. ValueError where it would not be taken.

        `checkpoint` is the name of something already in `checkpoint_dir`, or a function that saves to the path it is
        given, not called where the study keeps no checkpoints. What functions saved is removed once it is not needed:
        the last two that are known to be acknowledged stay, and all that came after.
        """
        if self._step == self.start:
            raise RuntimeError("report() belongs inside `for step in trial.steps():`")
        saved = self._save(checkpoint) if callable(checkpoint) else None
        name = saved.name if saved else checkpoint if isinstance(checkpoint, str) else None
        numbers = {metric: _float(metric, value) for metric, value in metrics.items()}
        line = json.dumps({"step": self._step, **numbers, **({"checkpoint": name} if name else {})})
        report = parse_line(line)  # here, where the traceback shows whose report it is
        _append(self._reports, line + "\n")
        if self._step >= self.budget and not self._has_result:
            self._tell(termination_message(report, TERMINATION_BYTES))
        if saved:
            self._kept.reported(self._step, saved)

    def _tell(self, result: str) -> None:
        """Leave a result that has no answer for the kubelet; without one, it takes the end of the log of a failure."""
        self._has_result = bool(result)
        files.overwrite(self._termination_log, result)

    def _stopped(self) -> bool:
        reason = self._read_verdict().get("stop")
        if reason is not None:
            _say(f"stopped: {reason}")
        return reason is not None

    def _promoted(self) -> bool:
        """Wait for the verdict and return whether to train on.

        A verdict on an earlier step stays in the file, but only an answer to this one can raise the budget.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            verdict = self._read_verdict()
            budget = verdict.get("budget", 0)
            if budget > self.budget:
                self.budget = budget
                self._tell("")
                return True
            if "stop" in verdict:
                return True  # steps() sees it and says so
            if time.monotonic() >= deadline:
                _say(f"no verdict on step {self._step} within {self._timeout} s: ending here")
                return False
            time.sleep(POLL)

    def _read_verdict(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(self._verdict.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return value

    def _save(self, save: Save) -> Path | None:
        if self.checkpoint_dir is None:
            return None
        if self.resume_from:
            resuming.note(self.checkpoint_dir, self.resume_from, self.start)
        return checkpoints.save(self.checkpoint_dir, self._step, save)


def _float(metric: str, value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metric {metric!r}: must be a number: {error}") from None


def _append(path: Path, line: str) -> None:
    """Add a line, or nothing: half a line at the end of a full disk would spoil the next one, too."""
    with path.open("ab", buffering=0) as file:
        end, left = file.seek(0, os.SEEK_END), line.encode()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise
        os.fsync(file)


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise RuntimeError(f"{name} is not set: is this running as a trial, by `halvard run` or in a Study's Pod?")
    return value


def _whole(environment: Mapping[str, str], name: str) -> int:
    value = _text(environment, name)
    try:
        return int(value)
    except ValueError:
        raise RuntimeError(f"{name}: must be a whole number, not {value!r}") from None


def _seconds(environment: Mapping[str, str], name: str) -> float:
    value = _text(environment, name)
    try:
        return float(value)
    except ValueError:
        raise RuntimeError(f"{name}: must be a number of seconds, not {value!r}") from None


def _json_object(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    text = _text(environment, name)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RuntimeError(f"{name}: must be a JSON object, not {text!r}")
    return value


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name)
    return Path(value) if value else None


def _say(text: str) -> None:
    print(f"halvard: {text}", file=sys.stderr, flush=True)

"""What a report is, on every path it travels: a JSON line, a line of stdout, the wire, the termination message.

Pure but for `Tail`; shared by the sidecar, the trainer library, the local runner and the endpoint.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MAX_LINE = 16 * 1024  # bytes
MAX_METRICS = 64
MAX_NAME = 128  # characters
MAX_STEP = 2**53 - 1  # what every JSON reader holds exactly

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x08")
_CHUNK = 64 * 1024  # bytes
_SHORT = 80  # characters of a value in an error


@dataclass(frozen=True)
class Report:
    """One line of metrics at one step. `metrics` may hold NaN and infinities; `checkpoint` is a name, or empty."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str = ""


def parse_line(text: str) -> Report:
    """Return the report of one JSON line; ValueError says what is wrong with it."""
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_LINE:
        raise ValueError(f"the line has {size} bytes or more; at most {MAX_LINE} are read")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {_short(value)}")
    step, checkpoint = value.pop("step", None), value.pop("checkpoint", None)
    return from_wire({"step": step, "metrics": value, "checkpoint": checkpoint})


def from_wire(value: object) -> Report:
    """Return the report of `{"step": 3, "metrics": {...}, "checkpoint": "step-3"}`; ValueError says what is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {_short(value)}")
    metrics = value.get("metrics", {})
    if not isinstance(metrics, dict):
        raise ValueError(f"metrics: must be an object, not {_short(metrics)}")
    if len(metrics) > MAX_METRICS:
        raise ValueError(f"{len(metrics)} metrics; at most {MAX_METRICS} are taken")
    return Report(
        step=_step(value.get("step")),
        metrics={_metric_name(name): _number(name, number) for name, number in metrics.items()},
        checkpoint=_checkpoint(value.get("checkpoint")),
    )


def to_wire(report: Report) -> dict[str, object]:
    """Return the report as it is pushed: non-finite numbers as the strings `NaN`, `Infinity`, `-Infinity`."""
    value: dict[str, object] = {
        "step": report.step,
        "metrics": {name: _wire_number(number) for name, number in report.metrics.items()},
    }
    return {**value, "checkpoint": report.checkpoint} if report.checkpoint else value


def compact(value: object) -> str:
    """Return strict JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def termination_message(report: Report, limit: int, objective: str = "") -> str:
    """Return the report's wire form in at most `limit` bytes: where it is larger, metrics go, `objective` last."""
    names = sorted(report.metrics, key=lambda name: name != objective)
    while True:
        kept = {name: report.metrics[name] for name in names}
        text = compact(to_wire(Report(report.step, kept, report.checkpoint)))
        if not names or len(text.encode()) <= limit:
            return text
        names.pop()


class Pattern:
    """Reads reports from stdout: named groups are metrics, but for `step`; without that, matching lines are counted."""

    def __init__(self, regex: str, start: int = 0) -> None:
        """Compile `regex`, counting from `start`; ValueError where it is no expression or names no metric."""
        try:
            self._regex = re.compile(regex)
        except re.error as error:
            raise ValueError(f"pattern: not a regular expression: {error}") from None
        self._metrics = [name for name in self._regex.groupindex if name != "step"]
        if not self._metrics:
            raise ValueError(f"pattern: {regex!r} has no named group for a metric, such as (?P<val_loss>\\S+)")
        self._counts = "step" not in self._regex.groupindex
        self._step = start

    def parse(self, line: str) -> Report | None:
        """Return the report of a line as a terminal shows it, None without a match; ValueError if it is no report."""
        match = self._regex.search(_TERMINAL.sub("", line).rstrip("\r\n").rpartition("\r")[2])
        if match is None:
            return None
        groups = match.groupdict()
        metrics = {name: _text_number(name, groups[name]) for name in self._metrics if groups[name] is not None}
        if self._counts:
            self._step += 1
            return from_wire({"step": self._step, "metrics": metrics})
        return from_wire({"step": _text_step(groups["step"]), "metrics": metrics})


@dataclass(frozen=True)
class Line:
    """One line without its newline, and the offset of the file where the next begins."""

    text: str
    end: int


class Tail:
    """Reads the complete new lines of a growing file that need not exist yet.

    A file that was replaced or has shrunk is read from its beginning. Of a line longer than `MAX_LINE` only the end is
    kept, one byte too long to pass for a report, so memory is bounded; of a progress bar a terminal shows no more.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        """Begin at byte `offset`."""
        self._path = path
        self._position = offset
        self._partial = b""
        self._inode: int | None = None

    def lines(self, *, last: bool = False) -> Iterator[Line]:
        """Yield what was added up to now; with `last`, also a line that has no newline. To be iterated to its end."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            end = self._begin(file)  # as of now: a faster writer must not hold this reader for ever
            while self._position < end and (chunk := file.read(min(_CHUNK, end - self._position))):
                yield from self._split(chunk)
        if last and self._partial:
            yield Line(self._partial.decode(errors="replace"), self._position)
            self._partial = b""

    def _begin(self, file: BinaryIO) -> int:
        """Go to where reading goes on, and return the file's size."""
        now = os.fstat(file.fileno())
        if now.st_size < self._position or self._inode not in (None, now.st_ino):
            self._position, self._partial = 0, b""
        self._inode = now.st_ino
        file.seek(self._position)
        return now.st_size

    def _split(self, chunk: bytes) -> Iterator[Line]:
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            self._position += len(part) + 1
            text = (self._partial + part)[-MAX_LINE - 1 :].decode(errors="replace")
            self._partial = b""
            yield Line(text, self._position)
        self._position += len(rest)
        self._partial = (self._partial + rest)[-MAX_LINE - 1 :]


def _step(value: object) -> int:
    if value is None:
        raise ValueError("step: missing; every report names its step, from 1")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"step: must be a whole number from 1, not {_short(value)}")
    if value > MAX_STEP:
        raise ValueError(f"step: {_short(value)} is too large; at most {MAX_STEP}")
    return value


def _metric_name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"metric {_short(name)}: a name has 1 to {MAX_NAME} printable characters")
    return name


def _number(name: str, value: object) -> float:
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"metric {_short(name)}: must be a number, not {_short(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"metric {_short(name)}: the number is too large") from None


def _checkpoint(value: object) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable():
        raise ValueError(f"checkpoint: must be a name of at most {MAX_NAME} printable characters, not {_short(value)}")
    if "/" in value or ".." in value or value == ".":
        raise ValueError(f'checkpoint: must be a plain name without "/" and "..", not {_short(value)}')
    return value


def _text_number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"metric {_short(name)}: must be a number, not {_short(text)}") from None


def _text_step(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise ValueError(f"step: must be a whole number from 1, not {_short(text)}") from None


def _wire_number(number: float) -> float | str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"
    return text if len(text) <= _SHORT else text[:_SHORT] + "..."

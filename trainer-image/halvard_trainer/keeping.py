"""Which of its checkpoints an attempt removes: only what is older than one that was acknowledged.

An attempt cannot know whether it is still believed. Where it is not, another one goes on from the last checkpoint that
was acknowledged, whatever was saved since: that one stays until a newer one is known to have taken its place.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from halvard_trainer import checkpoints

STAY = 2  # of those acknowledged: the last, and the one before for where that is damaged
READ_WITHIN = 1.0  # seconds; a runner on the same machine looks for reports far more often


class Kept:
    """The checkpoints that this process has saved and reported."""

    def __init__(self, acknowledged: Path | None) -> None:
        """`acknowledged`: the sidecar's file; None on one machine, where the runner itself reads what is reported."""
        self._file = acknowledged
        self._saved: dict[int, tuple[Path, float]] = {}

    def reported(self, step: int, checkpoint: Path) -> None:
        """Keep one more, and remove those that nobody goes on from any more."""
        self._saved[step] = checkpoint, time.monotonic()
        known = self._read_within() if self._file is None else _acknowledged(self._file)
        for old in [each for each in sorted(self._saved) if each <= known][:-STAY]:
            checkpoints.remove(self._saved.pop(old)[0])

    def _read_within(self) -> int:
        until = time.monotonic() - READ_WITHIN
        return max((step for step, (_, reported_at) in self._saved.items() if reported_at <= until), default=0)


def _acknowledged(file: Path) -> int:
    """The step that the sidecar has written; 0 where it has not, or where nobody can read it."""
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0

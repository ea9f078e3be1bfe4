"""What an attempt goes on from: the checkpoint acknowledged last or, where that is damaged, one before it.

Never a later one: whoever saved that may have run on without being believed. An attempt leaves a note of what it went
on from itself, so that the way back leads past all that was saved after that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from halvard_trainer import files
from halvard_trainer.checkpoints import damage, sync

NOTE = "resumed-from"


def usable(named: Path | None, step: int) -> tuple[Path | None, int]:
    """Return the checkpoint to go on from and its step: the one named, else the newest sound one before it, or none."""
    if named is None or not (why := damage(named)):
        return named, step
    _say(f"checkpoint {named} is not used: {why}")
    for path, done in _before(named, step):
        if not (why := damage(path)):
            _say(f"going on from checkpoint {path}")
            return path, done
        _say(f"checkpoint {path} is not used: {why}")
    _say("starting over")
    return None, 0


def note(directory: Path, origin: Path, step: int) -> None:
    """Leave in an attempt's directory from which checkpoint, of which step, it went on; the first note stays."""
    trial = _trial(origin)
    if trial is None or (directory / NOTE).exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    files.replace(directory / NOTE, json.dumps({"checkpoint": str(origin.relative_to(trial)), "step": step}))
    sync(directory / NOTE)


def _before(checkpoint: Path, step: int) -> Iterator[tuple[Path, int]]:
    """What is older than a checkpoint and its step, newest first: of its attempt, then of those that this came from."""
    there = {int(path.name[5:]): path for path in checkpoint.parent.glob("step-*") if path.name[5:].isdecimal()}
    yield from ((there[each], each) for each in sorted(there, reverse=True) if each < step)
    origin = _origin(checkpoint.parent)
    if origin and origin[1] < step:
        yield origin
        yield from _before(*origin)


def _origin(directory: Path) -> tuple[Path, int] | None:
    """What the attempt with this directory went on from, as far as its note says so."""
    try:
        said = json.loads((directory / NOTE).read_text(encoding="utf-8"))
        trial = _trial(directory)
        return (trial / said["checkpoint"], int(said["step"])) if trial else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trial(path: Path) -> Path | None:
    """The directory that holds those of the trial's attempts, `attempt-<n>...`; `path` is in one of these."""
    return next((each.parent for each in (path, *path.parents) if each.name.startswith("attempt-")), None)


def _say(text: str) -> None:
    print(f"halvard: {text}", file=sys.stderr, flush=True)

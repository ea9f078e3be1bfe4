"""Checkpoints on a disk: each is there as a whole or not at all, and one that was damaged later is known by its sums.

`step-3` has a file `step-3.sums` beside it: of each of its files the size and the CRC-32, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from halvard_trainer import files

Save = Callable[[Path], object]
"""Writes a checkpoint to a path that does not exist yet, as a file or as a directory."""

_CHUNK = 1024 * 1024  # bytes


def save(directory: Path, step: int, write: Save) -> Path:
    """Have the checkpoint of this step written and return its path; FileNotFoundError where nothing was."""
    final = directory / f"step-{step}"
    unfinished = directory / f"{final.name}.tmp"
    directory.mkdir(parents=True, exist_ok=True)
    remove(unfinished)
    write(unfinished)
    if not unfinished.exists():
        raise FileNotFoundError(f"checkpoint: the function given saved nothing at {unfinished}")
    _sync_all(unfinished)
    remove(final)
    files.replace(_sums(final), json.dumps({name: [_size(file), _crc(file)] for name, file in _files(unfinished)}))
    sync(_sums(final))
    unfinished.rename(final)
    sync(directory)
    return final


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, if it is there, and its sums."""
    if checkpoint.is_dir():
        shutil.rmtree(checkpoint)
    else:
        checkpoint.unlink(missing_ok=True)
    _sums(checkpoint).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have what was written to a file or a directory on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def damage(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint, nothing where it is sound; without sums it only has to hold something."""
    try:
        held = dict(_files(checkpoint))
        sums = json.loads(_sums(checkpoint).read_text(encoding="utf-8")) if _sums(checkpoint).exists() else {}
        if not sums:
            return "" if any(map(_size, held.values())) else "it is missing or empty"
        for name, (size, _) in sums.items():
            if name not in held or _size(held[name]) != size:
                return f"{name} has {_size(held[name]) if name in held else 0} bytes, not {size}"
        return next((f"{name} is corrupt" for name, (_, crc) in sums.items() if _crc(held[name]) != crc), "")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read: {error}"


def _files(checkpoint: Path) -> Iterator[tuple[str, Path]]:
    """The files of a checkpoint by their names in it; that of one that is a file itself is its own."""
    if not checkpoint.is_dir():
        yield "it", checkpoint
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(checkpoint)), path


def _sums(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.sums")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _sync_all(path: Path) -> None:
    for each in [*path.rglob("*"), path]:
        sync(each)

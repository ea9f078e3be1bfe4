"""The two ways the trainer's side writes a file that somebody else reads meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

ACKNOWLEDGED = "acknowledged.json"
"""Beside the verdict: `{"step": 3}`, the checkpoint that others would go on from. The sidecar writes it."""


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of the file at once: a reader sees the old or the new, never a part."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def overwrite(path: Path, text: str) -> bool:
    """Write `text` into a file that exists already; return whether it is there now: not where it could not be written.

    The kubelet mounts a termination log as a single file: it cannot be replaced, and outside a Pod it is not there.
    Whoever is killed in the middle leaves the old text or the new one.
    """
    data = text.encode()
    try:
        file = os.open(path, os.O_WRONLY)
        try:
            # Over the old text, padded with blanks, which mean nothing in JSON: a full disk has room for that.
            padded = data.ljust(os.fstat(file).st_size)
            whole = os.write(file, padded) == len(padded)
            os.ftruncate(file, len(data))
        finally:
            os.close(file)
    except OSError:
        return False
    return whole

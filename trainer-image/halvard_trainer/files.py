"""The two ways the trainer's side writes a file that somebody else reads meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of the file at once: a reader sees the old or the new, never a part."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def overwrite(path: Path, text: str) -> None:
    """Write `text` into a file that exists already, and do nothing where it does not.

    The kubelet mounts a termination log as a single file: it cannot be replaced, and outside a Pod it is not there.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    except OSError:
        return
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)

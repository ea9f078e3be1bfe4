"""This machine's GPUs: which there are, and which leg holds which."""

import shutil
import subprocess
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"


def devices(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the identifiers of the GPUs this process may use: those that `CUDA_VISIBLE_DEVICES` names, else all."""
    if VARIABLE in environ:
        return visible(environ[VARIABLE])
    return tuple(str(number) for number in range(_count()))


def visible(text: str) -> tuple[str, ...]:
    """Returns the identifiers in a value of `CUDA_VISIBLE_DEVICES`; as in CUDA, an invalid one ends the list."""
    named = []
    for identifier in (part.strip() for part in text.split(",")):
        if not identifier or identifier.startswith("-"):
            break
        named.append(identifier)
    return tuple(named)


def _count() -> int:
    """How many GPUs the driver knows, or, where its tool is missing, how many device files there are."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    answer = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)  # noqa: S603  # a fixed command
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


class Gpus:
    """The free GPUs, lent to one leg at a time."""

    def __init__(self, identifiers: tuple[str, ...]) -> None:
        """Begin with all of them free."""
        self.total = len(identifiers)
        self._free = deque(identifiers)

    def lend(self, count: int) -> tuple[str, ...] | None:
        """Returns `count` GPUs that nobody else holds, or None while there are not as many."""
        if count > len(self._free):
            return None
        return tuple(self._free.popleft() for _ in range(count))

    def take_back(self, identifiers: Iterable[str]) -> None:
        """Makes them free again."""
        self._free.extend(identifiers)

"""Waits for a condition, with a time-out that only a hang comes near."""

import time
from collections.abc import Callable

TIMEOUT = 60  # seconds


def eventually(condition: Callable[[], object]) -> None:
    """Return once `condition` holds; fail where it never does."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)

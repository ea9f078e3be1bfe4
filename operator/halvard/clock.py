"""The time that decisions rest on: close to that of the machine, but it never jumps, whatever that does."""

import time
from collections.abc import Callable

SLEW = 0.25


class Clock:
    """Seconds since the epoch that pass steadily.

    What is due at some moment is due in that many seconds also where the machine's clock is set back or forward
    meanwhile: such a jump is made up for bit by bit, by going slower or faster by no more than the share `SLEW`.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        """`wall` gives seconds since the epoch, `steady` seconds that only go forward."""
        self._wall = wall
        self._steady = steady
        self._now, self._at = wall(), steady()

    def __call__(self) -> float:
        """Returns what time it is."""
        at = self._steady()
        passed = at - self._at
        behind = self._wall() - (self._now + passed)
        self._now += passed + max(-SLEW * passed, min(behind, SLEW * passed))
        self._at = at
        return self._now


now = Clock()
"""The one of this process."""

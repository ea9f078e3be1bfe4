"""How often one may: a token bucket for each name."""

import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 16_384  # who was forgotten begins with a full bucket


class RateLimit:
    """Lets each name do something `at_once` times, and then `a_second` times a second."""

    def __init__(self, a_second: float, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._a_second = a_second
        self._at_once = at_once
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, name: str) -> bool:
        """Takes one out of the bucket of this name, if there is one."""
        now = self._clock()
        level, at = self._buckets.pop(name, (float(self._at_once), now))
        level = min(self._at_once, level + (now - at) * self._a_second)
        allowed = level >= 1
        self._buckets[name] = (level - allowed, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return allowed

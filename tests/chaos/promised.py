"""What a whole run promises, and what is missing of it."""

from collections import Counter
from collections.abc import Iterator, Mapping

from chaos.failpoints import FAILPOINTS
from chaos.kills import AT_RANDOM, DEATHS, kind

KILLS = 1000  # at random moments


def missing(planned: Mapping[str, int], begun: Mapping[str, int], faults: Counter[str]) -> Iterator[str]:
    """Rounds that were not begun, by scenario; kills at random moments, and at each failpoint, that did not happen."""
    for name, rounds in planned.items():
        if begun[name] < rounds:
            yield f"{name}: {rounds - begun[name]} of {rounds} rounds were not begun"
    promised = {AT_RANDOM: KILLS, **{kind(failpoint): DEATHS for failpoint in FAILPOINTS}}
    for name, times in promised.items():
        if faults[name] < times:
            yield f"{name}: {faults[name]:,} times, not {times:,}"

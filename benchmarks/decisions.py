"""The cost of one decision (a result told, the next leg asked for) with 1e3, 1e4 and 1e5 results in the rung.

The peer is the rule as most write it: append the result, sort the rung, scan its best third for one not promoted yet.
"""

import random
import statistics
import time
from collections.abc import Callable

from halvard.schedulers.asha import Asha
from halvard.study import Asha as AshaSpec

SIZES = (1_000, 10_000, 100_000)
DECISIONS = 200
ROUNDS = 5


def measure() -> list[tuple[str, ...]]:
    """Rows of (results, Halvard's µs, the sorting peer's µs, how many times less, smallest and largest round)."""
    rows = []
    for size in SIZES:
        ours = [_asha(size, seed) for seed in range(ROUNDS)]
        peer = [_sorting(size, seed) for seed in range(ROUNDS if size < SIZES[-1] else 2)]
        ratio = statistics.median(peer) / statistics.median(ours)
        spread = f"{min(ours):.1f} - {max(ours):.1f}"
        rows.append(
            (f"{size:,}", f"{statistics.median(ours):.1f}", spread, f"{statistics.median(peer):.0f}", f"{ratio:.0f}x")
        )
    return rows


def _asha(size: int, seed: int) -> float:
    """Median µs of record + promote once the lowest rung holds `size` results."""
    asha = Asha(AshaSpec(min_budget=1, max_budget=81, reduction_factor=3), "minimize")
    draw = random.Random(seed)
    for index in range(size):
        asha.record(index, 1, draw.random())
        asha.promote()

    def decide(index: int) -> None:
        asha.record(size + index, 1, draw.random())
        asha.promote()

    return _median_us(decide, DECISIONS)


def _sorting(size: int, seed: int) -> float:
    draw = random.Random(seed)
    results = [(draw.random(), index) for index in range(size)]
    promoted = {index for _, index in sorted(results)[: size // 3]}

    def decide(index: int) -> None:
        results.append((draw.random(), size + index))
        for _, candidate in sorted(results)[: len(results) // 3]:
            if candidate not in promoted:
                promoted.add(candidate)
                return

    return _median_us(decide, 20)


def _median_us(decide: Callable[[int], None], times: int) -> float:
    seconds = []
    for index in range(times):
        start = time.perf_counter()
        decide(index)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e6

"""The cost of one decision (a result told, the next leg asked for) with 1e3, 1e4 and 1e5 results in the rung.

The peer is the rule as most write it: append the result, sort the rung, scan its best third for one not promoted yet.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks.results import Rounds, Scale, Table
from halvard.schedulers.asha import Asha
from halvard.study import Asha as AshaSpec

SIZES = (1_000, 10_000, 100_000)
DECISIONS = 200
PEER_DECISIONS = 10


def measure(scale: Scale) -> Iterator[Table]:
    """Yields one table: what a decision takes here, and what it takes who sorts."""
    rows: list[tuple[str, ...]] = []
    raw: dict[str, Rounds] = {}
    for size in SIZES[: 2 if scale.quick else None]:
        ours, peer = [], []
        for seed in range(scale.rounds):
            ours.append(_asha(size, seed))
            peer.append(_sorting(size, seed))
        medians = [statistics.median(one) * 1e6 for one in ours]
        mine, theirs = (statistics.median(statistics.median(one) for one in rounds) * 1e6 for rounds in (ours, peer))
        spread = f"{min(medians):.1f} - {max(medians):.1f} µs"
        rows.append((f"{size:,}", f"{mine:.1f} µs", spread, f"{theirs:,.0f} µs", f"{theirs / mine:,.0f}x less"))
        raw |= {f"asha, {size}": ours, f"sorting, {size}": peer}
    columns = ("results in the rung", "Halvard", "each round", "sorting", "ratio")
    note = "Goal: a tenth of the fastest peer's at most, growing as log n. Sorting is no peer that anyone ships."
    yield Table("A decision of the scheduler", columns, rows, note, raw)


def _asha(size: int, seed: int) -> list[float]:
    """Seconds of each record + promote once the lowest rung holds `size` results."""
    asha = Asha(AshaSpec(min_budget=1, max_budget=81, reduction_factor=3), "minimize")
    draw = random.Random(seed)
    for index in range(size):
        asha.record(index, 1, draw.random())
        asha.promote()

    def decide(index: int) -> None:
        asha.record(size + index, 1, draw.random())
        asha.promote()

    return _seconds(decide, DECISIONS)


def _sorting(size: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    results = [(draw.random(), index) for index in range(size)]
    promoted = {index for _, index in sorted(results)[: size // 3]}

    def decide(index: int) -> None:
        results.append((draw.random(), size + index))
        for _, candidate in sorted(results)[: len(results) // 3]:
            if candidate not in promoted:
                promoted.add(candidate)
                return

    return _seconds(decide, PEER_DECISIONS)


def _seconds(decide: Callable[[int], None], times: int) -> list[float]:
    seconds = []
    for index in range(times):
        start = time.perf_counter()
        decide(index)
        seconds.append(time.perf_counter() - start)
    return seconds

"""The operator under load: every figure of it on one control plane, in one run."""

import asyncio
from collections.abc import Iterator

from benchmarks import reports, restart, starts, writes
from benchmarks.bed import made
from benchmarks.results import Scale, Table

RUNNING = (1, 100, 1000)


def measure(scale: Scale) -> Iterator[Table]:
    """Yields one table a figure, each measured in `scale.rounds` rounds."""
    with made() as bed:
        yield asyncio.run(starts.first_pods(bed, scale))
        yield asyncio.run(starts.pods_a_second(bed, scale))
        sizes = RUNNING[: 2 if scale.quick else None]
        for running in sizes:
            yield asyncio.run(reports.one_by_one(bed, scale, running))
        yield asyncio.run(reports.steadily(bed, scale, sizes[-1]))
        yield asyncio.run(reports.storm(bed, scale))
        yield asyncio.run(reports.endings(bed, scale))
        yield asyncio.run(writes.writes_a_trial(bed))
        yield asyncio.run(restart.restarts(bed, scale))

"""A Study starts: how long until its first Pod is there, and how many Pods a second follow."""

import itertools
import statistics
import time

from benchmarks.bed import Bed
from benchmarks.client import Arrival, Client, connected, copy_of, in_parallel, search
from benchmarks.peer import Creates, pod_for_comparison
from benchmarks.results import LATENCY_COLUMNS, Rounds, Scale, Table, latency_row
from halvard.kube import PODS, STUDIES, Manifest

STARTS = 10  # a round
BARE_AT_ONCE = 16

numbers = itertools.count(1)


async def first_pods(bed: Bed, scale: Scale) -> Table:
    """From creating a Study to its first Pod."""
    creates, first = Creates(), Rounds()
    async with connected(bed) as client:
        like = await pod_for_comparison(client)
        for _ in range(scale.rounds):
            creates.begin()
            first.append([])
            for _ in range(STARTS):
                await creates.add(client, like)
                name = f"first-{next(numbers)}"
                sent = time.perf_counter()
                await client.create(STUDIES, search(name, limits={"trials": 1}))
                first[-1].append((await client.arrival(name)).at - sent)
                await client.clear(name)
    row = latency_row("Study created -> first Pod seen by a watch", first, creates.answered, "p95 <= 1 s")
    raw = {"study to pod": first} | creates.raw()
    return Table("A Study starts", LATENCY_COLUMNS, [*creates.rows(), row], raw=raw)


async def pods_a_second(bed: Bed, scale: Scale) -> Table:
    """A Study that starts with many Pods beside a bare client that creates as many of the same."""
    count = 100 if scale.quick else 300
    rates: dict[str, Rounds] = {
        "bare client, one after the other": [],
        f"bare client, {BARE_AT_ONCE} at a time": [],
        f"a Study with parallelism {count}": [],
    }
    async with connected(bed) as client:
        like = await pod_for_comparison(client)
        for _ in range(scale.rounds):
            measured = (
                await bare_rate(client, like, count, 1),
                await bare_rate(client, like, count, BARE_AT_ONCE),
                await study_rate(client, count),
            )
            for rounds, rate in zip(rates.values(), measured, strict=True):
                rounds.append([rate])
    medians = {name: statistics.median(rate for [rate] in rounds) for name, rounds in rates.items()}
    bare = next(iter(medians.values()))
    rows = [
        (name, f"{medians[name]:.0f}", spread(rounds), f"{medians[name] / bare:.2f}", goal)
        for (name, rounds), goal in zip(rates.items(), ("", "", ">= 0.5"), strict=True)
    ]
    columns = ("measured", "Pods a second", "each round", "x bare loop", "goal")
    note = (
        f"{count} Pods, from the first that a watch saw to the last; each is a copy of a Pod that Halvard made, "
        "and is given a node at once."
    )
    return Table("Pods are created", columns, rows, note, rates)


async def bare_rate(client: Client, like: Manifest, count: int, at_once: int) -> float:
    names = [f"rate-{next(numbers)}" for _ in range(count)]
    await in_parallel((client.create(PODS, copy_of(like, name)) for name in names), at_once)
    rate = rate_of([await client.arrival(name) for name in names])
    await in_parallel(client.delete(PODS, name) for name in names)
    return rate


async def study_rate(client: Client, count: int) -> float:
    name = f"many-{next(numbers)}"
    await client.create(STUDIES, search(name, parallelism=count))
    rate = rate_of([await client.arrival(name) for _ in range(count)])
    await client.clear(name)
    return rate


def rate_of(arrivals: list[Arrival]) -> float:
    times = sorted(arrival.at for arrival in arrivals)
    return (len(times) - 1) / (times[-1] - times[0])


def spread(rates: Rounds) -> str:
    values = sorted(rate for [rate] in rates)
    return f"{values[0]:.0f} - {values[-1]:.0f}"

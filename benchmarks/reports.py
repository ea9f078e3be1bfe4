"""A trial reports at its rung, or ends: how long until the verdict, and until the Pod that takes its place is there."""

import asyncio
import itertools
import statistics
import time
from collections import deque
from dataclasses import dataclass, field

from benchmarks.bed import Bed
from benchmarks.client import Client, budget_of, connected, copy_of, in_parallel, search
from benchmarks.peer import Creates, pod_for_comparison
from benchmarks.results import LATENCY_COLUMNS, Rounds, Scale, Table, latency_row
from cluster.scripted import eventually
from halvard.kube import PODS, STUDIES, TRIALS, Manifest

REPORTS = 60  # a round
RATE = 10.0  # reports a second: a thousand trials whose legs last a hundred seconds
STORM = 100
ENDS = 20  # a round
WORST, BEST = 1e6, -1e6
GOAL = "p50 <= 2 x, p99 <= 250 ms"

numbers = itertools.count(1)


@dataclass(slots=True)
class Leg:
    """A running Pod, the budget it is to reach, and its token."""

    pod: Manifest
    budget: int
    token: str = ""


@dataclass(slots=True)
class Searching:
    """A Study with all its Pods running; each report comes from the one that waited longest."""

    client: Client
    name: str
    legs: deque[Leg] = field(default_factory=deque)
    reported: int = 0

    async def start(self, parallelism: int) -> None:
        """Waits until all of its Pods run, and all that is known of them is stored."""
        limits = {"trials": 100_000, "failedTrials": 100_000}
        await self.client.create(STUDIES, search(self.name, parallelism=parallelism, limits=limits))
        pods = [(await self.client.arrival(self.name)).pod for _ in range(parallelism)]
        await in_parallel(map(self.take, pods))
        await eventually(self._all_run)

    async def take(self, pod: Manifest) -> None:
        """The kubelet starts a Pod."""
        await self.client.runs(pod)
        self.legs.append(Leg(pod, budget_of(pod)))

    async def _all_run(self) -> bool:
        trials = (await self.client.list(TRIALS, self.name))["items"]
        return all(trial.get("status", {}).get("state") == "Running" for trial in trials)

    def _loss(self) -> float:
        """Better than all before, worse than all before, in turn: hot promotion and pause alternate."""
        self.reported += 1
        return (BEST if self.reported % 2 else WORST) * (1 + self.reported / 1e6)

    async def push(self, leg: Leg) -> tuple[bool, float]:
        """Reports at the leg's budget; returns whether it may go on (it can be pushed again then), and in how long."""
        leg.token = leg.token or await self.client.token(leg.pod)
        sent = time.perf_counter()
        verdict = await self.client.push(leg.token, leg.budget, leg.budget, self._loss())
        answered = time.perf_counter() - sent
        leg.budget = verdict.get("budget", leg.budget)
        return "budget" in verdict, answered


@dataclass(slots=True)
class Answers:
    """What reports led to, in seconds from the report."""

    hot: Rounds = field(default_factory=list)
    paused: Rounds = field(default_factory=list)
    pods: Rounds = field(default_factory=list)

    def begin(self) -> None:
        """Begins a round."""
        for rounds in (self.hot, self.paused, self.pods):
            rounds.append([])

    async def add(self, study: Searching) -> None:
        """The trial that waited longest reports; where it is paused, the next Pod takes its place."""
        leg = study.legs.popleft()
        leg.token = await study.client.token(leg.pod)
        sent = time.perf_counter()
        goes_on, answered = await study.push(leg)
        (self.hot if goes_on else self.paused)[-1].append(answered)
        if goes_on:
            study.legs.append(leg)
            return
        arrival = await study.client.arrival(study.name)
        self.pods[-1].append(arrival.at - sent)
        await study.client.ends(leg.pod)
        await study.take(arrival.pod)

    def rows(self, creates: Creates) -> list[tuple[str, ...]]:
        """Returns them beside the creates of the same rounds."""
        return [
            *creates.rows(),
            latency_row("report -> next leg's Pod seen by a watch", self.pods, creates.answered, GOAL),
            latency_row("report -> verdict: go on (hot promotion)", self.hot, creates.answered, GOAL),
            latency_row("report -> verdict: paused", self.paused, creates.answered, GOAL),
        ]

    def raw(self, creates: Creates) -> dict[str, Rounds]:
        """Returns every measurement."""
        return {"report to pod": self.pods, "report to hot": self.hot, "report to pause": self.paused} | creates.raw()


async def one_by_one(bed: Bed, scale: Scale, running: int) -> Table:
    """From a report at the rung to its verdict, and to the Pod that takes a paused trial's place."""
    creates, answers = Creates(), Answers()
    async with connected(bed) as client:
        like = await pod_for_comparison(client)
        study = Searching(client, f"reports-{next(numbers)}")
        await study.start(running)
        for _ in range(scale.rounds):
            creates.begin()
            answers.begin()
            for _ in range(REPORTS // 3 if scale.quick else REPORTS):
                await creates.add(client, like)
                await answers.add(study)
        note = f"Operator's memory: {bed.memory:.0f} MiB."
        await client.clear(study.name)
    title = f"A trial reports at its rung, {running:,} running"
    return Table(title, LATENCY_COLUMNS, answers.rows(creates), note, answers.raw(creates))


async def steadily(bed: Bed, scale: Scale, running: int) -> Table:
    """The same while reports come at a steady rate, whether or not the one before is answered."""
    creates, answers = Creates(), Answers()
    async with connected(bed) as client:
        like = await pod_for_comparison(client)
        study = Searching(client, f"steady-{next(numbers)}")
        await study.start(running)
        for _ in range(scale.rounds):
            creates.begin()
            answers.begin()
            async with asyncio.TaskGroup() as group:
                for _ in range(REPORTS // 3 if scale.quick else REPORTS):
                    group.create_task(creates.add(client, like))
                    group.create_task(answers.add(study))
                    await asyncio.sleep(1 / RATE)
        await client.clear(study.name)
    title = f"Reports at {RATE:.0f} a second, {running:,} running"
    note = "As many bare creates a second beside them. The k-th Pod is taken for the k-th pause's."
    return Table(title, LATENCY_COLUMNS, answers.rows(creates), note, answers.raw(creates))


async def storm(bed: Bed, scale: Scale) -> Table:
    """The same where all trials of one study report at the same moment."""
    creates, answered, complete = Creates(), Rounds(), []
    async with connected(bed) as client:
        like = await pod_for_comparison(client)
        for _ in range(scale.rounds):
            creates.begin()
            for _ in range(REPORTS // 3):
                await creates.add(client, like)
            study = Searching(client, f"storm-{next(numbers)}")
            await study.start(STORM)
            for leg in study.legs:
                leg.token = await client.token(leg.pod)
            begun = time.perf_counter()
            answers = await asyncio.gather(*map(study.push, study.legs))
            complete.append(time.perf_counter() - begun)
            answered.append([seconds for _, seconds in answers])
            await client.clear(study.name)
    row = latency_row("report -> verdict", answered, creates.answered, "")
    note = f"The last one was answered after {statistics.median(complete):.2f} s."
    raw = {"storm to verdict": answered} | creates.raw()
    return Table(f"All of {STORM} trials report at once", LATENCY_COLUMNS, [*creates.rows(), row], note, raw)


async def endings(bed: Bed, scale: Scale) -> Table:
    """From a Pod's failure, as the kubelet reports it, to the next Pod, beside a bare client that watches Pods."""
    bare, ours = Rounds(), Rounds()
    creates = Creates()
    async with connected(bed) as client:
        like = await pod_for_comparison(client)
        study = Searching(client, f"ends-{next(numbers)}")
        await study.start(1)
        for _ in range(scale.rounds):
            creates.begin()
            bare.append([])
            ours.append([])
            for _ in range(ENDS // 2 if scale.quick else ENDS):
                await creates.add(client, like)
                bare[-1].append(await bare_succession(client, like))
                ended = time.perf_counter()
                await client.ends(study.legs.popleft().pod, code=1)
                arrival = await client.arrival(study.name)
                ours[-1].append(arrival.at - ended)
                await study.take(arrival.pod)
        await client.clear(study.name)
    rows = [
        *creates.rows(),
        latency_row("Pod fails -> a bare client that watches creates the next", bare, creates.answered, ""),
        latency_row("Pod fails -> the next trial's Pod", ours, creates.answered, "0.3 s behind the bare client"),
    ]
    raw = {"end to pod, bare": bare, "end to pod": ours} | creates.raw()
    return Table("A trial ends", LATENCY_COLUMNS, rows, raw=raw)


async def bare_succession(client: Client, like: Manifest) -> float:
    """Seconds from writing a Pod's failure to seeing the Pod that was created because a watch told of the failure."""
    first, second = (f"succession-{next(numbers)}" for _ in range(2))
    pod = await client.create(PODS, copy_of(like, first))
    failure = client.failure(first)
    ended = time.perf_counter()
    await asyncio.gather(client.ends(pod, code=1), create_after(client, failure, copy_of(like, second)))
    seconds = (await client.arrival(second)).at - ended
    for name in (first, second):
        await client.delete(PODS, name)
    return seconds


async def create_after(client: Client, failure: asyncio.Event, manifest: Manifest) -> None:
    await failure.wait()
    await client.create(PODS, manifest)

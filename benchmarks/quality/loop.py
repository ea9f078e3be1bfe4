"""A world in virtual time for searches that are asked and told: the clock of `halvard.simulate`, without Halvard.

A step costs what it cost when it was measured. A start-up is paid once a Pod; a trial that goes on after a report stays
in its Pod, and a worker that is free asks for the next trial at once. What a search computes costs no virtual time.
"""

import heapq
import itertools
import math
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from benchmarks.quality.problem import UNIT, Condition, Problem
from halvard.simulate.table import Rows


@dataclass(frozen=True, slots=True)
class Work:
    """For a free worker: train this trial until step `until`; `point`: where in the unit cube a new trial lies."""

    trial: int
    until: int
    point: Sequence[float] | None


class Search(Protocol):
    """A policy in the middle of one run."""

    @property
    def told_at(self) -> Container[int]:
        """The steps whose values it wants to hear, beside that until which a trial trains."""

    def ask(self) -> Work | None:
        """Returns what a free worker is to do; None: nothing before the next value is told."""

    def trains(self, trial: int, point: Sequence[float]) -> None:
        """Hears which configuration a new trial really trains."""

    def tell(self, trial: int, step: int, value: float) -> int:
        """Hears a value, which may not be finite; returns until where the trial goes on in its Pod, `step`: it ends."""


class Improvement(NamedTuple):
    """A trial finished with the best value so far. `at` and `busy`, what all workers had worked by then, in R."""

    at: float
    busy: float
    value: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: trials begun and finished, and `seconds` of a core that it took to compute."""

    improvements: Sequence[Improvement]
    begun: int
    finished: int
    seconds: float


def run(search: Search, problem: Problem, condition: Condition) -> Outcome:
    """Runs a search until it is cut off or has nothing more to do."""
    world = _World(search, problem, condition)
    began = time.process_time()
    world.run()
    seconds = time.process_time() - began
    return Outcome(world.improvements, len(world.rows), world.finished, seconds)


class _World:
    def __init__(self, search: Search, problem: Problem, condition: Condition) -> None:
        self.search, self.problem, self.condition = search, problem, condition
        self.unused = Rows(problem.table)
        self.rows: dict[int, int] = {}  # by trial
        self.trained: dict[int, int] = {}  # steps, by trial
        self.until: dict[int, int] = {}  # where it ends or asks, by trial that has a worker
        self.timeline: list[tuple[float, int, int]] = []  # when which trial has its next value to tell
        self.order = itertools.count()
        self.now = self.busy = 0.0
        self.finished = 0
        self.improvements: list[Improvement] = []

    def run(self) -> None:
        self.fill()
        while self.timeline and self.timeline[0][0] <= self.condition.cap * UNIT:
            at, _, trial = heapq.heappop(self.timeline)
            self.busy += (at - self.now) * len(self.until)
            self.now = at
            self.report(trial)
            self.fill()

    def fill(self) -> None:
        while len(self.until) < self.condition.workers and len(self.rows) < len(self.problem.table.u):
            work = self.search.ask()
            if work is None:
                return
            if work.point is not None:
                row = self.rows[work.trial] = self.unused.take(work.point)
                self.trained[work.trial] = 0
                self.search.trains(work.trial, self.problem.table.u[row].tolist())
            self.until[work.trial] = work.until
            self.train(work.trial, self.condition.start_up * UNIT)

    def train(self, trial: int, start_up: float) -> None:
        """Until the next step whose value is to be told."""
        start, until = self.trained[trial], self.until[trial]
        step = next((step for step in range(start + 1, until) if step in self.search.told_at), until)
        lasts = start_up + float(self.problem.table.seconds[self.rows[trial], start:step].sum())
        self.trained[trial] = step
        heapq.heappush(self.timeline, (self.now + lasts, next(self.order), trial))

    def report(self, trial: int) -> None:
        step = self.trained[trial]
        value = float(self.problem.table.value[self.rows[trial], step - 1])
        if step == self.problem.steps:
            self.finish(value)
        self.until[trial] = self.search.tell(trial, step, value)
        if self.until[trial] > step:
            self.train(trial, start_up=0.0)
        else:
            del self.until[trial]

    def finish(self, value: float) -> None:
        self.finished += 1
        if value < (self.improvements[-1].value if self.improvements else math.inf):  # never NaN
            self.improvements.append(Improvement(self.now / UNIT, self.busy / UNIT, value))

"""What is measured: a result is told, and what its worker does next is asked for."""

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.engine.problem import NAMES, loss


class Engine(Protocol):
    """A search that knows many trials. WORKERS more train; they report in turn."""

    begun: int  # new trials so far

    @property
    def due(self) -> int:
        """The step at which the next trial reports."""

    def decide(self, value: float) -> None:
        """Tells that report, and asks what its worker is to do next: this is what is measured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end: after `most` decisions, or once they took `seconds`, but not before there are `fewest`."""

    fewest: int
    most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of processor time of a round's decisions, by what came of them: a new trial, or not."""

    new: Sequence[float]
    others: Sequence[float]

    @property
    def typical(self) -> float:
        """The median of all decisions."""
        return statistics.median([*self.new, *self.others])

    @property
    def of_new(self) -> float:
        """The median of those that began a trial, of all where none did."""
        return statistics.median(self.new) if self.new else self.typical

    @property
    def a_trial(self) -> float:
        """All decisions for each new trial, in seconds, none where none began: what it costs in its whole life."""
        return sum([*self.new, *self.others]) / len(self.new) if self.new else math.nan


def measure(engine: Engine, seed: int, limits: Limits) -> Measured:
    """Returns what decisions take.

    What is reported is drawn from `seed`, whatever was proposed: as good as what is known already, so that every engine
    has as many trials that go on.
    """
    draw = random.Random(seed)
    new: list[float] = []
    others: list[float] = []
    while (count := len(new) + len(others)) < limits.fewest or (
        count < limits.most and sum(new) + sum(others) < limits.seconds
    ):
        value = loss({name: draw.random() for name in NAMES}, engine.due, draw.random())
        begun, start = engine.begun, time.process_time()
        engine.decide(value)
        taken = time.process_time() - start
        (new if engine.begun > begun else others).append(taken)
    return Measured(new, others)

"""What is to be solved, and under which conditions: a table of real learning curves, workers, a start-up cost."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halvard.ladder import rungs
from halvard.samplers.random import Random
from halvard.simulate.files import read_table
from halvard.simulate.table import Table, TableError

UNIT = 10_000.0  # seconds of the median full training, R: whole, so that whole seconds can say when a run is cut off
TOP = 0.01  # the share of a table's configurations whose final value is good enough
TOPS = {"quant": 0.03}  # nearly every policy misses its top 1 % in the time there is


@dataclass(frozen=True, slots=True)
class Condition:
    """So many workers; every Pod costs `start_up` and a run is cut off at `cap`, both in R."""

    workers: int
    start_up: float
    cap: float

    @property
    def title(self) -> str:
        start_up = (
            f"a Pod's start costs {self.start_up:.0%} of a full training" if self.start_up else "Pods start at once"
        )
        return f"{self.workers} workers, {start_up}"


CONDITIONS = (
    Condition(workers=16, start_up=0.0, cap=5.0),
    Condition(workers=16, start_up=0.06, cap=5.0),
    Condition(workers=64, start_up=0.0, cap=2.0),
    Condition(workers=64, start_up=0.06, cap=2.0),
)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A table whose median full training takes `UNIT` seconds; less is better. `digest`: of the file it came from."""

    name: str
    digest: str
    table: Table

    @property
    def steps(self) -> int:
        """The full budget."""
        return int(self.table.value.shape[1])

    @property
    def target(self) -> float:
        """The worst final value that counts as good: that of the last configuration of the top share."""
        final = self.table.value[:, -1]
        last = max(1, round(TOPS.get(self.name, TOP) * len(final)))
        return float(np.sort(final)[last - 1])  # NaN sorts last

    @property
    def worst(self) -> float:
        """The largest finite value of the table: what a diverged training is said to have reported where NaN breaks."""
        return float(self.table.value[np.isfinite(self.table.value)].max())

    def finite(self, value: float) -> float:
        return value if math.isfinite(value) else self.worst

    def rungs(self, eta: int) -> tuple[int, ...]:
        return rungs(1, self.steps, eta)

    def random_points(self, seed: int) -> Iterator[Sequence[float]]:
        """The points that Halvard's `random` draws: every policy that samples at random gets the same ones."""
        draw = Random(len(self.table.names), seed)
        return (next(draw.draws(index, {})).point for index in range(len(self.table.u)))


def read_problems(folder: Path) -> list[Problem]:
    """Returns the problems in a folder of npz files, by name; raises TableError where there are none or one is bad."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise TableError(f"{folder}: no npz file is there, one for each table")
    return [read_problem(path) for path in paths]


def read_problem(path: Path) -> Problem:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    problem = Problem(path.stem, digest, read_table(path).scaled(UNIT))
    if not math.isfinite(problem.target):
        raise TableError(f"{path}: value: too few configurations end with a finite one for a target")
    return problem

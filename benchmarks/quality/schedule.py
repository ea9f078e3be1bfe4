"""Makes the runs that are missing, several at a time; a run that is stopped keeps what was finished."""

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterable, Sequence
from itertools import product
from statistics import mean

from rich.console import Console

from benchmarks.quality.policies import Policy
from benchmarks.quality.problem import Condition, Problem
from benchmarks.quality.runs import HERE, Run, Store, Task, run

SAY_EVERY = 30.0  # seconds
GUESS = 5.0  # seconds of a run of which there was none yet


def tasks(
    policies: Sequence[Policy], problems: Sequence[Problem], conditions: Sequence[Condition], seeds: int
) -> list[Task]:
    """Returns all runs, one seed after the other: wherever they are stopped, all policies have seen the same."""
    ordered = product(range(seeds), conditions, problems, policies)
    return [Task(policy, problem, condition, seed) for seed, condition, problem, policy in ordered]


def make(wanted: Sequence[Task], store: Store, processes: int, console: Console) -> int:
    """Makes those that the store does not hold, says how long it will take, and returns how many failed."""
    missing = [task for task in wanted if task.key not in store.runs]
    if not missing:
        return 0
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a run has one core
    left = TimeLeft(wanted, store, processes)
    console.print(f"{len(missing)} of {len(wanted)} runs to make, {processes} at a time; {left.text(missing)}")
    failed, said = 0, time.monotonic()
    open_tasks = {task.key: task for task in missing}
    modules = sorted({task.policy.module for task in missing})
    # leaving the pool ends what still runs
    with multiprocessing.get_context("spawn").Pool(processes, _begin, (modules,)) as pool:
        for key, made in pool.imap_unordered(_run, list(open_tasks.items())):
            task = open_tasks.pop(key)
            if isinstance(made, Run):
                store.add(made)
                left.made(task, made)
            else:
                failed += 1
                console.print(f"{task.policy.name} on {task.problem.name}, seed {task.seed}: {made}", markup=False)
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                done = len(wanted) - len(open_tasks)
                console.print(f"{done} of {len(wanted)} runs; {left.text(open_tasks.values())}")
    return failed


class TimeLeft:
    """What runs take of a core, by policy and workers, and how much of the cores they get."""

    def __init__(self, wanted: Iterable[Task], store: Store, processes: int) -> None:
        """Learns from the runs that are kept."""
        self._processes = processes
        self._began, self._computed = time.monotonic(), 0.0
        self._seconds: dict[tuple[str, int], list[float]] = {}
        for task in wanted:
            if task.key in store.runs:
                self._learn(task, store.runs[task.key])

    def made(self, task: Task, made: Run) -> None:
        """Another run was finished."""
        self._computed += made.seconds
        self._learn(task, made)

    def _learn(self, task: Task, made: Run) -> None:
        self._seconds.setdefault((task.policy.name, task.condition.workers), []).append(made.seconds)

    def text(self, missing: Iterable[Task]) -> str:
        """Says how long these will take."""
        known = {key: mean(values) for key, values in self._seconds.items()}
        guess = mean(known.values()) if known else GUESS
        seconds = sum(known.get((task.policy.name, task.condition.workers), guess) for task in missing)
        elapsed = time.monotonic() - self._began
        minutes = seconds * (elapsed / self._computed if self._computed else 1 / self._processes) / 60
        return f"about {int(minutes // 60)} h {minutes % 60:.0f} min left"


def _begin(modules: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent to end
    for module in modules:  # all at once: their code may change while runs are made
        importlib.import_module(f"{HERE}.{module}")


def _run(item: tuple[str, Task]) -> tuple[str, Run | str]:
    key, task = item
    try:
        return key, run(task, key)
    except Exception:  # noqa: BLE001  # one policy that breaks is no reason to lose the others
        return key, traceback.format_exc(limit=-3)

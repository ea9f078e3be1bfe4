"""Halvard as it is in a cluster: the tuner and `decide`, in `halvard.simulate`."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.quality.loop import Improvement, Outcome
from benchmarks.quality.problem import UNIT, Condition, Problem
from halvard.samplers import MakeSampler, Proposal, Sampler, make_sampler
from halvard.simulate.conditions import Conditions
from halvard.simulate.table import Table
from halvard.simulate.world import simulate
from halvard.study import Study, StudySpec
from halvard.tried import Tried


def run(problem: Problem, condition: Condition, seed: int, *, sampler: str, scheduler: str) -> Outcome:
    """Returns what comes of a study with these two, each with its defaults."""
    study, table = make_study(problem, condition, seed, sampler, scheduler), make_table(problem)
    conditions = Conditions(workers=condition.workers, start_up=condition.start_up * UNIT)
    began = time.process_time()
    simulation = simulate(study, table, conditions, trained_rows(study.spec, table))
    seconds = time.process_time() - began
    improvements = [Improvement(i.at / UNIT, i.busy / UNIT, i.value) for i in simulation.improvements]
    finished = simulation.study.status.trials.complete
    return Outcome(improvements, len(simulation.trials), finished, seconds)


def make_table(problem: Problem) -> Table:
    """Returns the problem's table with other names for its coordinates: a parameter may not be called just anything."""
    return replace(problem.table, names=tuple(f"x{place}" for place in range(len(problem.table.names))))


def make_study(problem: Problem, condition: Condition, seed: int, sampler: str, scheduler: str) -> Study:
    ladder = {"budget": problem.steps} if scheduler == "none" else {"maxBudget": problem.steps}
    return Study.from_manifest(
        {
            "apiVersion": "halvard.dev/v1alpha1",
            "kind": "Study",
            "metadata": {"name": "search"},
            "spec": {
                "objective": {"metric": "value", "goal": "minimize"},
                "parameters": [{"name": name, "float": {"min": 0.0, "max": 1.0}} for name in make_table(problem).names],
                "sampler": {sampler: {}},
                "scheduler": {scheduler: ladder},
                "limits": {"duration": f"{condition.cap * UNIT:.0f}s"},
                "seed": seed,
                "template": {"spec": {"containers": [{"name": "trainer"}]}},
            },
        }
    )


def trained_rows(spec: StudySpec, table: Table) -> MakeSampler:
    """Returns what makes the study's sampler, told what is really trained."""
    return lambda forecaster: TrainedRows(make_sampler(spec, forecaster), table)


class TrainedRows:
    """The study's sampler, whose proposals are moved to where the trial really trains: the nearest row not used yet.

    So what a sampler learns from is what was trained. `halvard.simulate` would take the same row anyway.
    """

    def __init__(self, sampler: Sampler, table: Table) -> None:
        """Takes the sampler of a study whose parameters are the table's coordinates, each from 0 to 1."""
        self._sampler, self._table = sampler, table
        self._known: set[int] = set()
        self._used = np.zeros(len(table.u), dtype=bool)

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal | None:
        for known in tried.keys() - self._known:
            self._used[self._nearest(tried[known].parameters)] = True
        self._known.update(tried)
        proposal = self._sampler.propose(index, tried)
        if proposal is None:
            return None
        row = self._table.u[self._nearest(proposal.parameters)]
        return replace(proposal, parameters=dict(zip(self._table.names, row.tolist(), strict=True)))

    def _nearest(self, parameters: Mapping[str, Any]) -> int:
        point = np.array([parameters[name] for name in self._table.names])
        distance = ((self._table.u - point) ** 2).sum(axis=1)
        distance[self._used] = np.inf
        return int(distance.argmin())

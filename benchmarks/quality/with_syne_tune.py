"""Syne Tune: its schedulers with their own searchers, driven as its tuner drives them."""

import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import uniform
from syne_tune.optimizer import baselines
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.quality import loop
from benchmarks.quality.loop import Outcome, Work
from benchmarks.quality.problem import Condition, Problem


def run(problem: Problem, condition: Condition, seed: int, *, baseline: str) -> Outcome:
    return loop.run(Search(problem, seed, baseline), problem, condition)


class Search:
    def __init__(self, problem: Problem, seed: int, baseline: str) -> None:
        logging.disable(logging.WARNING)
        random.seed(seed)
        np.random.seed(seed)  # its searchers draw from numpy's global generator
        self._problem = problem
        names = problem.table.names
        points = None
        if baseline == "ASHA":
            points = [dict(zip(names, point, strict=True)) for point in problem.random_points(seed)]
        self._scheduler = getattr(baselines, baseline)(
            {name: uniform(0.0, 1.0) for name in names},
            metric="value",
            time_attr="step",
            max_t=problem.steps,
            random_seed=seed,
            points_to_evaluate=points,
        )
        self._trials: dict[int, Trial] = {}
        self._begun = 0
        self.told_at = range(1, problem.steps + 1)

    def ask(self) -> Work:
        trial, config = self._begun, self._scheduler.suggest().config
        self._begun += 1
        return Work(trial, self._problem.steps, [config[name] for name in self._problem.table.names])

    def trains(self, trial: int, point: Sequence[float]) -> None:
        """The trial is added with the configuration that is really trained: searchers learn from that."""
        config = dict(zip(self._problem.table.names, point, strict=True))
        self._trials[trial] = Trial(trial_id=trial, config=config, creation_time=datetime.now(UTC))
        self._scheduler.on_trial_add(self._trials[trial])

    def tell(self, trial: int, step: int, value: float) -> int:
        result = {"step": step, "value": self._problem.finite(value)}
        decision = self._scheduler.on_trial_result(self._trials[trial], result)
        if decision == SchedulerDecision.CONTINUE:
            return self._problem.steps
        self._scheduler.on_trial_remove(self._trials.pop(trial))
        return step

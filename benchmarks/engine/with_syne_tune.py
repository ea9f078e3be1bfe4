"""Syne Tune: its ASHA with the random searcher that comes with it, driven as its tuner drives it."""

import logging
import random
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
from syne_tune.backend.trial_status import Trial as SyneTuneTrial
from syne_tune.config_space import uniform
from syne_tune.optimizer.baselines import ASHA
from syne_tune.optimizer.scheduler import SchedulerDecision
from typing_extensions import override

from benchmarks.engine.problem import BUDGETS, ETA, NAMES
from benchmarks.engine.stopping import StoppingEngine
from halvard.trial import Trial

ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Asha(StoppingEngine[SyneTuneTrial]):
    """`on_trial_result`; where that stops the trial, `on_trial_remove`, `suggest`, and `on_trial_add` of the next."""

    def __init__(self, trials: Iterable[Trial], seed: int) -> None:
        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        random.seed(seed)
        np.random.seed(seed)  # its searchers draw from numpy's global generator
        self._scheduler = ASHA(
            {name: uniform(0.0, 1.0) for name in NAMES},
            metric="value",
            time_attr="step",
            max_t=BUDGETS[-1],
            reduction_factor=ETA,
            random_seed=seed,
        )
        self._next = 0
        super().__init__(trials)

    @override
    def remember(self, trials: Iterable[Trial]) -> None:
        rungs = dict(self._scheduler.brackets[0].rungs)
        for trial in trials:
            config = dict(trial.spec.parameters)
            for result in trial.status.rungs:
                self._scheduler.searcher.on_trial_result(
                    trial.index, config, metric=result.value, resource_level=result.budget
                )
                if result.budget < BUDGETS[-1]:  # it keeps none of the last
                    rungs[result.budget][trial.index] = {"value": result.value}
            self._next = max(self._next, trial.index + 1)

    @override
    def begin(self) -> SyneTuneTrial:
        config = self._scheduler.suggest().config
        trial = SyneTuneTrial(trial_id=self._next, config=config, creation_time=ANY_TIME)
        self._scheduler.on_trial_add(trial)
        self._next += 1
        return trial

    @override
    def goes_on(self, trial: SyneTuneTrial, budget: int, value: float) -> bool:
        decision = self._scheduler.on_trial_result(trial, {"step": budget, "value": value})
        if decision == SchedulerDecision.CONTINUE:
            return True
        self._scheduler.on_trial_remove(trial)
        return False

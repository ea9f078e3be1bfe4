"""Ray Tune: the code of its ASHA scheduler, without a Ray cluster around it, and without a searcher."""

from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler
from typing_extensions import override

from benchmarks.engine.problem import BUDGETS, ETA
from benchmarks.engine.stopping import StoppingEngine
from halvard.trial import Trial


class Asha(StoppingEngine[SimpleNamespace]):
    """`on_trial_result`; where that stops the trial, `on_trial_remove`, and `on_trial_add` of the next."""

    def __init__(self, trials: Iterable[Trial], seed: int) -> None:
        np.random.seed(seed)  # it draws brackets from numpy's global generator, also of a single one
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="step", metric="value", mode="min", max_t=BUDGETS[-1], reduction_factor=ETA
        )
        super().__init__(trials)

    @override
    def remember(self, trials: Iterable[Trial]) -> None:
        rungs = dict(self._scheduler._brackets[0]._rungs)  # noqa: SLF001
        for trial in trials:
            for result in trial.status.rungs:
                if result.value is not None and result.budget < BUDGETS[-1]:  # it keeps none of the last
                    rungs[result.budget][f"known-{trial.index}"] = -result.value

    @override
    def begin(self) -> SimpleNamespace:
        trial = SimpleNamespace(trial_id=f"new-{self.begun}")  # all that the scheduler looks at
        self._scheduler.on_trial_add(None, trial)
        return trial

    @override
    def goes_on(self, trial: SimpleNamespace, budget: int, value: float) -> bool:
        decision = self._scheduler.on_trial_result(None, trial, {"step": budget, "value": value})
        if decision == AsyncHyperBandScheduler.CONTINUE:
            return True
        self._scheduler.on_trial_remove(None, trial)
        return False

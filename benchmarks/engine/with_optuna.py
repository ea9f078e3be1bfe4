"""Optuna: pruner and sampler by ask and tell, on its storage in memory."""

from collections.abc import Iterable

import optuna
from optuna.trial import TrialState
from typing_extensions import override

from benchmarks.engine.problem import BUDGETS, ETA, NAMES
from benchmarks.engine.stopping import StoppingEngine
from halvard.trial import Trial

AXES = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in NAMES}


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Returns `random`, or `tpe` as a study with many parameters and workers has it."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)


class Asha(StoppingEngine[optuna.Trial]):
    """`report`, `should_prune`; where that ends the trial, `tell`, and `ask` for the next."""

    def __init__(self, trials: Iterable[Trial], seed: int, *, sampler: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA)
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, sampler=make_sampler(sampler, seed), pruner=pruner)
        super().__init__(trials)

    @override
    def remember(self, trials: Iterable[Trial]) -> None:
        study = self._storage.get_study_id_from_name(self._study.study_name)
        for trial in trials:
            number = self._storage.create_new_trial(study)
            for name, axis in AXES.items():
                self._storage.set_trial_param(number, name, trial.spec.parameters[name], axis)
            for rung, result in enumerate(trial.status.rungs):
                self._storage.set_trial_intermediate_value(number, result.budget, result.value)
                if result.budget < BUDGETS[-1]:  # the last is not asked about
                    self._storage.set_trial_system_attr(number, f"completed_rung_{rung}", result.value)
            last = trial.status.rungs[-1]
            state = TrialState.COMPLETE if last.budget == BUDGETS[-1] else TrialState.PRUNED
            self._storage.set_trial_state_values(number, state, [last.value])

    @override
    def begin(self) -> optuna.Trial:
        return self._study.ask(AXES)

    @override
    def goes_on(self, trial: optuna.Trial, budget: int, value: float) -> bool:
        trial.report(value, budget)
        if budget == BUDGETS[-1]:
            self._study.tell(trial, value)
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        return False

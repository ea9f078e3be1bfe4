"""Optuna: its own sampler and pruner, driven by ask and tell."""

from collections.abc import Sequence

import optuna

from benchmarks.quality import loop
from benchmarks.quality.loop import Outcome, Work
from benchmarks.quality.problem import Condition, Problem


def run(problem: Problem, condition: Condition, seed: int, *, pruner: str) -> Outcome:
    return loop.run(Search(problem, seed, pruner), problem, condition)


def make_pruner(name: str, problem: Problem) -> tuple[optuna.pruners.BasePruner, int]:
    """Returns the pruner and its reduction factor: it decides at the powers of that, and nowhere else."""
    if name == "sha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3), 3
    if name == "sha, defaults":
        return optuna.pruners.SuccessiveHalvingPruner(), 4
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(1, problem.steps, reduction_factor=3), 3  # its defaults, too
    raise ValueError(f"pruner {name}: must be one of 'sha', 'sha, defaults' and 'hyperband'")


class Search:
    def __init__(self, problem: Problem, seed: int, pruner: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made, eta = make_pruner(pruner, problem)
        self._problem = problem
        self._axes = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in problem.table.names}
        self._storage = optuna.storages.InMemoryStorage()
        name = f"{problem.name}-{seed}"  # Hyperband picks brackets by a hash of it
        sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
        self._study = optuna.create_study(storage=self._storage, sampler=sampler, pruner=made, study_name=name)
        self._id = self._storage.get_study_id_from_name(name)
        self._trials: dict[int, optuna.Trial] = {}
        self.told_at = frozenset(problem.rungs(eta))

    def ask(self) -> Work:
        trial = self._study.ask(self._axes)
        self._trials[trial.number] = trial
        return Work(trial.number, self._problem.steps, [trial.params[name] for name in self._axes])

    def trains(self, trial: int, point: Sequence[float]) -> None:
        """Writes what is really trained over what was proposed, where the sampler will read it."""
        number = self._storage.get_trial_id_from_study_id_trial_number(self._id, trial)
        for (name, axis), u in zip(self._axes.items(), point, strict=True):
            self._storage.set_trial_param(number, name, u, axis)

    def tell(self, trial: int, step: int, value: float) -> int:
        known, finite = self._trials[trial], self._problem.finite(value)
        known.report(finite, step)
        if step == self._problem.steps:
            self._study.tell(known, finite)
        elif known.should_prune():
            self._study.tell(known, state=optuna.trial.TrialState.PRUNED)
        else:
            return self._problem.steps
        del self._trials[trial]
        return step

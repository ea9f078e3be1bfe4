"""The tuner: one sampler and one scheduler behind ask and tell, rebuilt at any moment from the stored trials."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from halvard.samplers import Proposal, Tried, make_sampler
from halvard.schedulers import make_scheduler
from halvard.study import StudySpec, Value
from halvard.trial import Trial


@dataclass(frozen=True, slots=True)
class Leg:
    """A decision: this trial is to train until `budget` in total. `new`: its first leg; `decision`: why, for people."""

    index: int
    parameters: Mapping[str, Value]
    budget: int
    bracket: int
    decision: str
    new: bool


class Tuner:
    """Ask for legs, tell their results. `spec` may be replaced by one with other limits; the search stays as it was."""

    def __init__(self, spec: StudySpec, trials: Iterable[Trial] = ()) -> None:
        """Folds the stored trials, in any order; raises ValueError where they do not fit the study."""
        self.spec = spec
        self._sampler = make_sampler(spec)
        self._scheduler = make_scheduler(spec, lambda: self._proposal() is not None)
        self._legs: dict[int, Leg] = {}  # the latest of every trial
        self._tried: dict[int, Tried] = {}
        self._proposed: tuple[Proposal | None] | None = None  # the sampler's last answer, while nothing new is known
        self._next = 0
        for trial in trials:
            decided = trial.spec
            new = not trial.status.rungs
            self._hold(Leg(trial.index, decided.parameters, decided.budget, decided.bracket, decided.decision, new))
            results = {result.budget: result.value for result in trial.status.rungs}
            failed = trial.status.state in ("Failed", "Stopped")
            self._learn(trial.index, Tried(decided.parameters, results, failed))
            self._scheduler.fold(trial)

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets of all rungs, the lowest first."""
        return self._scheduler.budgets

    @property
    def max_budget(self) -> int:
        """The budget of the highest rung."""
        return self._scheduler.max_budget

    def ask(self, *, new_trials: bool = True) -> Leg | None:
        """Returns the next leg and holds it for decided: a promotion that is due, else a new trial, else None.

        With `new_trials` off, only a promotion.
        """
        leg = self._promotion() or (self._new_trial() if new_trials else None)
        if leg is not None:
            self._hold(leg)
        return leg

    def tell(self, index: int, budget: int, value: float | None) -> str:
        """Records the result of a leg (None: not finite) and returns where it stands, as a sentence.

        Raises ValueError where the trial's latest leg is not one until `budget`, or its result is known.
        """
        leg = self._legs.get(index)
        if leg is None or leg.budget != budget:
            assigned = "does not exist" if leg is None else f"trains until {leg.budget}"
            raise ValueError(f"no result at budget {budget} can come from trial {index}: it {assigned}")
        self._scheduler.record(index, budget, value)
        tried = self._tried[index]
        finite = value if value is not None and math.isfinite(value) else None
        self._learn(index, replace(tried, results={**tried.results, budget: finite}))
        return self._scheduler.explain(index, budget)

    def explain(self, index: int, budget: int) -> str:
        """Returns where a result that was told stands by now, as a sentence."""
        return self._scheduler.explain(index, budget)

    def withdraw(self, index: int) -> None:
        """Never promotes a trial again, because it failed or was stopped; its results go on counting."""
        self._scheduler.withdraw(index)
        self._learn(index, replace(self._tried[index], failed=True))

    def _promotion(self) -> Leg | None:
        promotion = self._scheduler.promote()
        if promotion is None:
            return None
        return replace(self._legs[promotion.index], budget=promotion.budget, decision=promotion.why, new=False)

    def _new_trial(self) -> Leg | None:
        proposal = self._proposal()
        if proposal is None:
            return None
        bracket, budget = self._scheduler.start(self._next)
        return Leg(self._next, proposal.parameters, budget, bracket, decision=proposal.why, new=True)

    def _proposal(self) -> Proposal | None:
        """What the next new trial is to try; None where there can be none."""
        limit = self.spec.limits.trials
        if limit is not None and self._next >= limit:
            return None
        if self._proposed is None:
            self._proposed = (self._sampler.propose(self._next, self._tried),)
        return self._proposed[0]

    def _hold(self, leg: Leg) -> None:
        self._legs[leg.index] = leg
        if leg.index not in self._tried:
            self._learn(leg.index, Tried(leg.parameters, results={}, failed=False))
        self._next = max(self._next, leg.index + 1)

    def _learn(self, index: int, tried: Tried) -> None:
        self._tried[index] = tried
        self._proposed = None

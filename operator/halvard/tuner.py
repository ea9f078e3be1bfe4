"""The tuner: one sampler and one scheduler behind ask and tell, rebuilt at any moment from the stored trials."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real

from halvard.forecast.forecaster import Forecaster
from halvard.samplers import MakeSampler, Proposal, make_sampler
from halvard.samplers.fallback import propose
from halvard.schedulers import make_scheduler
from halvard.study import StudySpec, Value
from halvard.trial import Trial, TrialSpec
from halvard.tried import Tried


@dataclass(frozen=True, slots=True)
class Leg:
    """A decision: this trial, trained until `start` so far, is to train until `budget` in total.

    `decision`: why, for people; `control`: it was not due, but drawn at random; `sampler_failed`: it is a new trial at
    random for that reason. `order` is the decision's place among all decisions, results and withdrawals of the study,
    from 1.
    """

    index: int
    parameters: Mapping[str, Value]
    start: int
    budget: int
    bracket: int
    decision: str
    order: int
    control: bool = False
    sampler_failed: bool = False

    @property
    def new(self) -> bool:
        """Whether it is the trial's first."""
        return self.start == 0

    def trial_spec(self) -> TrialSpec:
        """Returns the decision as it is stored."""
        return TrialSpec(
            index=self.index,
            bracket=self.bracket,
            budget=self.budget,
            parameters=self.parameters,
            decision=self.decision,
            order=self.order,
            control=self.control,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What follows from a report.

    `leg_over`: it is the result of the leg; what the trial does next is for `ask` to say. `stop`: the trial is to end
    now, for good. `why`: where it stands, for people. `order`: the result's place in the study, 0 where it is none.
    """

    leg_over: bool
    stop: bool
    why: str
    order: int


GOES_ON = Answer(leg_over=False, stop=False, why="", order=0)


class Tuner:
    """Ask for legs, tell their reports. `spec` may be replaced by one with other limits; the search stays as it was."""

    def __init__(self, spec: StudySpec, trials: Iterable[Trial] = (), sampler: MakeSampler | None = None) -> None:
        """Folds the stored trials, in any order; raises ValueError where they do not fit the study.

        `sampler` makes what takes the place of the one that the study names.
        """
        self.spec = spec
        self._forecaster = Forecaster(spec)
        self._sampler = sampler(self._forecaster) if sampler else make_sampler(spec, self._forecaster)
        self._scheduler = make_scheduler(spec, lambda: self._proposal() is not None, self._forecaster)
        self._legs: dict[int, Leg] = {}  # the latest of every trial
        self._tried: dict[int, Tried] = {}
        self._withdrawn: set[int] = set()
        self._proposed: tuple[Proposal | None] | None = None  # the sampler's last answer, while nothing new is known
        self._next = 0
        self._order = 0  # of the last thing that happened
        for trial in trials:
            self._fold(trial)

    def _fold(self, trial: Trial) -> None:
        spec, status = trial.spec, trial.status
        start = max((result.budget for result in status.rungs if result.budget < spec.budget), default=0)
        self._hold(
            Leg(
                index=spec.index,
                parameters=spec.parameters,
                start=start,
                budget=spec.budget,
                bracket=spec.bracket,
                decision=spec.decision,
                order=spec.order,
                control=spec.control,
            )
        )
        tried = Tried(
            spec.parameters,
            results={result.budget: result.value for result in status.rungs},
            failed=False,
            seconds={result.budget: result.seconds for result in status.rungs},
            orders={result.budget: result.order for result in status.rungs},
        )
        self._scheduler.fold(trial)
        if status.state in ("Failed", "Stopped"):
            tried = self._over(trial.index, tried, status.order)
        self._learn(trial.index, tried)
        self._order = max(self._order, spec.order, status.order, *tried.orders.values())

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

    def tell(self, index: int, step: int, value: float | None, seconds: float = 0.0) -> Answer:
        """Takes in a report of the trial's latest leg (None: not finite) and returns what follows from it.

        `seconds`: what the leg took, if known; it counts with the leg's result. Raises ValueError where the trial does
        not exist or was withdrawn, the result of its leg is known already, or a number is none: nothing changes then.
        """
        self._check(index, "no report can come from")
        if not isinstance(step, Integral):
            raise ValueError(f"step: {step!r}; has to be a whole number")
        if not isinstance(seconds, Real) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds: {seconds!r}; has to be a number from 0")
        leg, tried = self._legs[index], self._tried[index]
        if leg.budget in tried.results:
            raise ValueError(f"trial {index} already has a result at rung {leg.budget}")
        value = None if value is None else float(value)  # numpy's own floats are of other types, and not as exact
        if step < leg.budget:
            stop = self._scheduler.report(index, step, value)
            return GOES_ON if stop is None else replace(GOES_ON, stop=True, why=stop)
        order, budget = self._tick(), leg.budget
        finite = value if value is not None and math.isfinite(value) else None
        learnt = replace(
            tried,
            results={**tried.results, budget: finite},
            seconds={**tried.seconds, budget: round(seconds, 3)},  # as it is stored, so that a fold learns the same
            orders={**tried.orders, budget: order},
        )
        self._learn(index, learnt)
        self._scheduler.record(index, budget, finite)
        return Answer(leg_over=True, stop=False, why=self._scheduler.explain(index, budget), order=order)

    def explain(self, index: int, budget: int) -> str:
        """Returns where a result that was told stands by now, as a sentence; raises ValueError where there is none."""
        if budget not in (self._tried[index].results if index in self._tried else ()):
            raise ValueError(f"trial {index} has no result at budget {budget}")
        return self._scheduler.explain(index, budget)

    def converged(self, index: int) -> float | None:
        """Returns the final value of a trial that was stopped because it had come to it (patience); else None."""
        return self._scheduler.converged(index)

    def withdraw(self, index: int) -> int:
        """Never promotes a trial again, because it failed or was stopped; its results go on counting.

        Returns the place of this in the study. Raises ValueError where the trial does not exist or was withdrawn.
        """
        self._check(index, "nobody can withdraw")
        self._scheduler.withdraw(index)
        order = self._tick()
        self._learn(index, self._over(index, self._tried[index], order))
        return order

    def _check(self, index: int, what: str) -> None:
        """Refuses what nobody can do with a trial that was never asked for, or is over."""
        if index not in self._legs:
            last = f"the last is {self._next - 1}" if self._next else "there is none yet"
            raise ValueError(f"{what} trial {index}: it does not exist, {last}")
        if index in self._withdrawn:
            raise ValueError(f"{what} trial {index}: it was withdrawn, and nothing more can come of it")

    def _over(self, index: int, tried: Tried, order: int) -> Tried:
        """A trial of which nothing more will come, as others learn from it: what had converged has its final value."""
        self._withdrawn.add(index)
        final = self.converged(index)
        if final is None:
            return replace(tried, failed=True)
        return replace(
            tried,
            results={**tried.results, self.max_budget: final},
            seconds={**tried.seconds, self.max_budget: 0.0},
            orders={**tried.orders, self.max_budget: order},
        )

    def _promotion(self) -> Leg | None:
        promotion = self._scheduler.promote()
        if promotion is None:
            return None
        leg = self._legs[promotion.index]
        return replace(
            leg,
            start=leg.budget,
            budget=promotion.budget,
            decision=promotion.why,
            control=promotion.control,
            sampler_failed=False,
            order=self._tick(),
        )

    def _new_trial(self) -> Leg | None:
        proposal = self._proposal()
        if proposal is None:
            return None
        bracket, budget = self._scheduler.start(self._next)
        return Leg(
            index=self._next,
            parameters=proposal.parameters,
            start=0,
            budget=budget,
            bracket=bracket,
            decision=proposal.why,
            sampler_failed=proposal.sampler_failed,
            order=self._tick(),
        )

    def _proposal(self) -> Proposal | None:
        """What the next new trial is to try; None where there can be none."""
        limit = self.spec.limits.trials
        if limit is not None and self._next >= limit:
            return None
        if self._proposed is None:
            self._proposed = (propose(self._sampler, self.spec, self._next, self._tried),)
        return self._proposed[0]

    def _hold(self, leg: Leg) -> None:
        self._legs[leg.index] = leg
        if leg.index not in self._tried:
            self._learn(leg.index, Tried(leg.parameters, results={}, failed=False))
        self._next = max(self._next, leg.index + 1)

    def _learn(self, index: int, tried: Tried) -> None:
        self._tried[index] = tried
        self._forecaster.learn(index, tried)
        self._proposed = None

    def _tick(self) -> int:
        self._order += 1
        return self._order

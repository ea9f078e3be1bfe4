"""The `scheduler` of a Study: that section of `crds/study.yaml` as frozen values."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from halvard.invalid import Check, rule
from halvard.ladder import rungs, rungs_from_the_top
from halvard.model import LARGEST, Model

MOST_RUNGS = 54
"""No ladder has more: from 1 by 2 to the largest budget."""

MOST_REPORTS = 200
"""So many of a trial's reports are kept where every one decides: `median` and `patience`."""


class Ladder(Model):
    """Budgets from `min_budget` to `max_budget`, each `reduction_factor` times the one below."""

    min_budget: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    max_budget: Annotated[int, Field(ge=1, le=LARGEST)]
    reduction_factor: Annotated[int, Field(ge=2, le=1000)] = 3


class Halving(Ladder):
    """A ladder from the bottom up: minBudget * reductionFactor^k, capped."""

    @rule("maxBudget must be greater than minBudget", field="maxBudget", tells=("max_budget", "min_budget"))
    def _is_a_ladder(self) -> bool:
        return self.max_budget > self.min_budget

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets of all rungs, the lowest first."""
        return rungs(self.min_budget, self.max_budget, self.reduction_factor)


class Asha(Halving):
    """Asynchronous successive halving (Li et al., MLSys 2020): budgets minBudget * reductionFactor^k, capped."""

    brackets: Annotated[int, Field(ge=1, le=MOST_RUNGS)] = 1
    grace: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    control: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @rule("grace must be no more than maxBudget", field="grace", tells=("grace", "max_budget"))
    def _grace_ends(self) -> bool:
        return self.grace <= self.max_budget

    @Check
    def _brackets_have_a_rung_each(self) -> Iterator[tuple[str, str]]:
        if self.max_budget > self.min_budget:
            budgets = self.budgets
            if self.brackets > len(budgets):
                ladder = ", ".join(map(str, budgets))
                yield "brackets", f"{self.brackets} must be no more than there are rungs, {len(budgets)}: {ladder}"


class Hyperband(Ladder):
    """Hyperband, synchronous (Li et al., JMLR 18, 2018): budgets maxBudget / reductionFactor^k, rounded down."""

    @rule(
        "maxBudget must be at least minBudget * reductionFactor, or there is only one rung",
        field="maxBudget",
        tells=("max_budget", "min_budget", "reduction_factor"),
    )
    def _has_two_rungs(self) -> bool:
        return self.max_budget >= self.min_budget * self.reduction_factor

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets of all rungs, the lowest first."""
        return rungs_from_the_top(self.min_budget, self.max_budget, self.reduction_factor)


class Adaptive(Halving):
    """ASHA's ladder, on which those go on whose predicted final value promises most for its cost."""


class FullBudget(Model):
    """Every trial trains to the full budget at once."""

    budget: Annotated[int, Field(ge=1, le=LARGEST)]

    @property
    def budgets(self) -> tuple[int, ...]:
        """The only rung."""
        return (self.budget,)


class Stopping(FullBudget):
    """Every trial sets out for the full budget; each report from `grace` on, `interval` apart, may be its last."""

    grace: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    interval: Annotated[int, Field(ge=1, le=LARGEST)] = 1

    @rule("grace must be no more than budget", field="grace", tells=("grace", "budget"))
    def _grace_ends(self) -> bool:
        return self.grace <= self.budget

    @rule(
        f"interval must be at least budget / {MOST_REPORTS}: no more reports of a trial are kept",
        field="interval",
        tells=("interval", "budget"),
    )
    def _reports_can_be_kept(self) -> bool:
        return self.budget <= MOST_REPORTS * self.interval


class Median(Stopping):
    """Stops what is worse than the median of the other trials at the same step (Golovin et al., KDD 2017)."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 4


class Patience(Stopping):
    """Stops what has not improved by more than `min_delta` for `patience` units of budget."""

    patience: Annotated[int, Field(ge=1, le=LARGEST)]
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Scheduler(Model):
    """Picks who runs next, and how far: exactly one of the fields."""

    asha: Asha | None = None
    hyperband: Hyperband | None = None
    adaptive: Adaptive | None = None
    median: Median | None = None
    patience: Patience | None = None
    none: FullBudget | None = None

    @rule("exactly one of asha, hyperband, adaptive, median, patience and none must be set")
    def _one_scheduler(self) -> bool:
        return sum(kind is not None for kind in self._kinds) == 1

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets of all rungs, the lowest first; raises ValueError where no scheduler is set."""
        for kind in self._kinds:
            if kind is not None:
                return kind.budgets
        raise ValueError("spec.scheduler names no scheduler")

    @property
    def interval(self) -> int | None:
        """Reports at multiples of this step are decided on, and kept; None where only results are."""
        stopping = self.median or self.patience
        return stopping.interval if stopping else None

    @property
    def _kinds(self) -> tuple[Asha | Hyperband | Adaptive | FullBudget | None, ...]:
        return self.asha, self.hyperband, self.adaptive, self.median, self.patience, self.none

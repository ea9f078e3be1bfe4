"""The `scheduler` of a Study: that section of `crds/study.yaml` as frozen values."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from halvard.invalid import Check, rule
from halvard.ladder import rungs
from halvard.model import LARGEST, Model

MOST_RUNGS = 54
"""No ladder has more: from 1 by 2 to the largest budget."""


class Ladder(Model):
    """Budgets from `min_budget` to `max_budget`, each `reduction_factor` times the one below."""

    min_budget: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    max_budget: Annotated[int, Field(ge=1, le=LARGEST)]
    reduction_factor: Annotated[int, Field(ge=2, le=1000)] = 3


class Asha(Ladder):
    """Asynchronous successive halving (Li et al., MLSys 2020): budgets minBudget * reductionFactor^k, capped."""

    brackets: Annotated[int, Field(ge=1, le=MOST_RUNGS)] = 1

    @rule("maxBudget must be greater than minBudget", field="maxBudget")
    def _is_a_ladder(self) -> bool:
        return self.max_budget > self.min_budget

    @Check
    def _brackets_have_a_rung_each(self) -> Iterator[tuple[str, str]]:
        if self.max_budget > self.min_budget:
            budgets = rungs(self.min_budget, self.max_budget, self.reduction_factor)
            if self.brackets > len(budgets):
                ladder = ", ".join(map(str, budgets))
                yield "brackets", f"{self.brackets} must be no more than there are rungs, {len(budgets)}: {ladder}"


class Hyperband(Ladder):
    """Hyperband, synchronous (Li et al., JMLR 18, 2018): budgets maxBudget / reductionFactor^k, rounded down."""

    @rule("maxBudget must be at least minBudget * reductionFactor, or there is only one rung", field="maxBudget")
    def _has_two_rungs(self) -> bool:
        return self.max_budget >= self.min_budget * self.reduction_factor


class FullBudget(Model):
    """Every trial trains to the full budget at once."""

    budget: Annotated[int, Field(ge=1, le=LARGEST)]


class Scheduler(Model):
    """Picks who runs next, and how far: exactly one of the fields."""

    asha: Asha | None = None
    hyperband: Hyperband | None = None
    none: FullBudget | None = None

    @rule("exactly one of asha, hyperband and none must be set")
    def _one_scheduler(self) -> bool:
        return sum(kind is not None for kind in (self.asha, self.hyperband, self.none)) == 1

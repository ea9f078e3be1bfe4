"""ASHA as Algorithm 2 of Li et al. (MLSys 2020) has it, line by line: sorted anew at every call, nothing clever.

Where the paper says nothing: the lower index wins a tie, and what is not finite counts in |rung| and never goes on.
"""

import math
from dataclasses import dataclass, field


@dataclass
class PaperAsha:
    """One bracket; losses are minimised."""

    budgets: tuple[int, ...]
    eta: int
    results: list[dict[int, float]] = field(default_factory=list)
    promoted: list[set[int]] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    grace: int = 1  # not in the paper: at rungs below it all are candidates

    def __post_init__(self) -> None:
        self.results = [{} for _ in self.budgets]
        self.promoted = [set() for _ in self.budgets]

    def record(self, index: int, budget: int, loss: float) -> None:
        self.results[self.budgets.index(budget)][index] = loss if math.isfinite(loss) else math.inf

    def get_job(self) -> tuple[int, int] | None:
        """The promotion to run next as (trial, budget); None where the paper would grow the bottom rung."""
        for k in reversed(range(len(self.budgets) - 1)):
            ranked = sorted(self.results[k], key=lambda index: (self.results[k][index], index))
            candidates = ranked if self.budgets[k] < self.grace else ranked[: len(ranked) // self.eta]
            promotable = [t for t in candidates if self._may_go_on(t, k)]
            if promotable:
                self.promoted[k].add(promotable[0])
                return promotable[0], self.budgets[k + 1]
        return None

    def _may_go_on(self, trial: int, k: int) -> bool:
        return trial not in self.promoted[k] and trial not in self.failed and self.results[k][trial] < math.inf

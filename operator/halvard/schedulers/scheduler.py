"""What a scheduler is, and what those have in common that promote the best of a rung."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from halvard.schedulers.rung import Rung, Standing
from halvard.trial import Trial


class Start(NamedTuple):
    """Where a new trial begins."""

    bracket: int
    budget: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """The decision that a trial goes on to `budget`, and why; `control`: it was not due, but drawn at random."""

    index: int
    budget: int
    why: str
    control: bool = False


class Scheduler(Protocol):
    """Knows the results of a study and decides on them; its state is a fold over the study's trials."""

    budgets: tuple[int, ...]

    @property
    def max_budget(self) -> int:
        """The budget of the highest rung."""

    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial: its results, and what was decided on them."""

    def start(self, index: int) -> Start:
        """Returns the bracket and the first budget of the new trial `index`, and holds it for begun."""

    def report(self, index: int, step: int, value: float | None) -> str | None:
        """Takes in a report from before the leg's end; a text says why the trial is to stop now, for good."""

    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; None and non-finite values are the worst."""

    def promote(self) -> Promotion | None:
        """Returns the next promotion that is due, and holds it for done."""

    def withdraw(self, index: int) -> None:
        """Takes a trial out of the running; its results stay."""

    def converged(self, index: int) -> float | None:
        """Returns the final value of a trial that was stopped because it had come to it; None for any other."""

    def explain(self, index: int, budget: int) -> str:
        """Returns where a result stands, for people."""


class Halving(ABC):
    """Successive halving: results by rung, those that were promoted, and trials that never will be."""

    def __init__(self, budgets: tuple[int, ...]) -> None:
        """Takes the budgets of all rungs, the lowest first."""
        self.budgets = budgets
        self._withdrawn: set[int] = set()

    @property
    def max_budget(self) -> int:
        """The budget of the highest rung."""
        return self.budgets[-1]

    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial: a result was promoted if the trial's budget is above it."""
        for result in trial.status.rungs:
            rung = self.rung(trial.index, result.budget)
            promoted = trial.spec.budget > result.budget
            rung.add(trial.index, result.value, promoted=promoted, order=result.order)
        if trial.status.state in ("Failed", "Stopped"):
            self.withdraw(trial.index)

    def report(self, index: int, step: int, value: float | None) -> str | None:  # noqa: ARG002
        """Decides nothing: only results at rungs count."""
        return None

    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; raises ValueError where `budget` is no rung or the trial has a result there."""
        self.rung(index, budget).add(index, value)

    def withdraw(self, index: int) -> None:
        """Never promotes this trial again; its results stay in their rungs."""
        self._withdrawn.add(index)

    def converged(self, index: int) -> float | None:  # noqa: ARG002
        """Returns None: what is stopped might have become better."""
        return None

    def explain(self, index: int, budget: int) -> str:
        """Returns the standing of a result as a sentence."""
        return self.standing(index, budget).sentence()

    @abstractmethod
    def rung(self, index: int, budget: int) -> Rung:
        """Returns the rung at this budget of the trial's bracket; raises ValueError where it has none."""

    @abstractmethod
    def standing(self, index: int, budget: int) -> Standing:
        """Returns where the trial's result at this rung stands now; raises KeyError where there is none."""


def no_rung(index: int, budget: int, budgets: tuple[int, ...]) -> ValueError:
    """Returns the error about a result that belongs to no rung."""
    return ValueError(f"trial {index} has a result at budget {budget}, which is no rung: {budgets}")

"""Schedulers pick who runs next, and how far."""

from typing import Protocol

from halvard.schedulers.asha import Asha, Promotion, Start
from halvard.study import StudySpec
from halvard.trial import Trial


class Scheduler(Protocol):
    """Knows the results of a study and decides on them; its state is a fold over the study's trials."""

    budgets: tuple[int, ...]
    max_budget: int

    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial: its results, and what was decided on them."""

    def start(self, index: int) -> Start:
        """Returns the bracket and the first budget of the new trial `index`."""

    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; None and non-finite values are the worst."""

    def promote(self) -> Promotion | None:
        """Returns the next promotion that is due, and holds it for done."""

    def withdraw(self, index: int) -> None:
        """Takes a trial out of the running; its results stay."""

    def explain(self, index: int, budget: int) -> str:
        """Returns where a result stands, for people."""


def make_scheduler(spec: StudySpec) -> Scheduler:
    """Returns the study's scheduler; raises ValueError where `spec.scheduler` names none."""
    if spec.scheduler.asha is not None:
        return Asha(spec.scheduler.asha, spec.objective.goal)
    raise ValueError("spec.scheduler needs asha")

"""What came of a simulated study: who had which worker when, what was decided, and how good it was by then."""

from collections.abc import Iterator
from dataclasses import dataclass

from halvard.status import time_spent
from halvard.study import Study
from halvard.trial import Trial


@dataclass(frozen=True, slots=True)
class Decision:
    """At `at` seconds it was decided that a trial trains until `budget`; `hot`: on in the Pod it has."""

    at: float
    trial: int
    budget: int
    hot: bool
    why: str


@dataclass(frozen=True, slots=True)
class Span:
    """An attempt's time with a worker: from its place, or a result after which it went on, to a result or its end.

    Times are seconds since the study began. It trained from step `start` to `step`; `budget` is that of the result it
    brought, None where it brought none.
    """

    trial: int
    attempt: int
    worker: int
    began: float
    ended: float
    start: int
    step: int
    budget: int | None

    @property
    def seconds(self) -> float:
        """How long the worker was busy with it."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Simulated:
    """A trial at the end of the study, the row of the table that it trained, and its time with workers in order."""

    trial: Trial
    row: int
    spans: tuple[Span, ...]

    def busy(self) -> Iterator[tuple[str, float]]:
        """Yields (outcome, seconds) of each span, the outcomes those of the status: promoted, complete, paused, …"""
        outcomes = {spent.rung: spent.outcome for spent in time_spent(self.trial)}
        for span in self.spans:
            yield outcomes[span.budget or 0], span.seconds


@dataclass(frozen=True, slots=True)
class Improvement:
    """A trial finished the full budget with the best value so far, or was stopped by patience, which counts as that.

    `busy`: the seconds that workers had been busy by then; `regret`: how far the value is from the table's best at the
    full budget, below 0 where it was better on the way.
    """

    at: float
    trial: int
    value: float
    busy: float
    regret: float


@dataclass(frozen=True, slots=True)
class Simulation:
    """A study that ended after `seconds` of virtual time, with everything that happened, each in the order of time.

    `gpus` is how many GPUs a worker has: those that the study's template asks for.
    """

    study: Study
    budgets: tuple[int, ...]
    seconds: float
    gpus: float
    trials: tuple[Simulated, ...]
    decisions: tuple[Decision, ...]
    improvements: tuple[Improvement, ...]

    @property
    def best(self) -> Improvement | None:
        """The best value at the full budget, and when it was first reached; None where no trial got there."""
        return self.improvements[-1] if self.improvements else None

    def busy(self) -> dict[str, float]:
        """Returns the seconds that workers were busy by what became of it."""
        seconds = dict.fromkeys(("promoted", "complete", "paused", "failed", "lost"), 0.0)
        for trial in self.trials:
            for outcome, spent in trial.busy():
                seconds[outcome] += spent
        return seconds

    def reached(self, value: float) -> Improvement | None:
        """Returns the first trial that finished the full budget with a value at least as good; None where none did."""
        sign = self.study.spec.objective.sign
        return next((i for i in self.improvements if sign * i.value <= sign * value), None)

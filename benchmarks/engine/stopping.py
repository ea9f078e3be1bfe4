"""What the peers have in common: a trial begins at the lowest rung, and goes on at once or never."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from typing_extensions import override

from benchmarks.engine.engine import Engine
from benchmarks.engine.problem import BUDGETS, WORKERS
from halvard.trial import Trial

T = TypeVar("T")
WORST, BEST = 1e6, -1e6


class StoppingEngine(Engine, ABC, Generic[T]):
    """T is what the peer itself calls a trial."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        """Remembers trials, begins others, and makes sure that it decides as who knows those does."""
        self.begun = 0
        self.remember(trials)
        self._training: deque[tuple[T, int]] = deque()
        for _ in range(WORKERS):
            self._begin()
        for value, ends in ((WORST, True), (BEST, False)):
            begun = self.begun
            self.decide(value)
            if (self.begun > begun) != ends:
                raise RuntimeError(f"{type(self).__module__}: a trial with the value {value}: ended: {not ends}")

    @property
    @override
    def due(self) -> int:
        return BUDGETS[self._training[0][1]]

    @override
    def decide(self, value: float) -> None:
        trial, rung = self._training.popleft()
        if self.goes_on(trial, BUDGETS[rung], value):
            self._training.append((trial, rung + 1))
        else:
            self._begin()

    def _begin(self) -> None:
        self._training.append((self.begin(), 0))
        self.begun += 1

    @abstractmethod
    def remember(self, trials: Iterable[Trial]) -> None:
        """Takes in trials that were stopped or finished.

        Where telling one by one would cost what is to be measured, their results go to where the peer keeps them.
        """

    @abstractmethod
    def begin(self) -> T:
        """Asks for a new trial."""

    @abstractmethod
    def goes_on(self, trial: T, budget: int, value: float) -> bool:
        """Tells a result; returns whether the trial goes on to the next rung, and ends it if not."""

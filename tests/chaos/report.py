"""What a scenario is, and what came of its rounds."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lab.control_plane import ControlPlane


@dataclass(frozen=True)
class Report:
    """What one round did and found: faults by kind, how many trials went through them, requests made again, checks.

    `ends`: operators that ended by themselves, by what they said last.
    """

    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    retries: int = 0
    checks: int = 0
    violations: tuple[str, ...] = ()

    def __add__(self, other: "Report") -> "Report":
        """Both together."""
        return Report(
            self.faults + other.faults,
            self.ends + other.ends,
            self.trials + other.trials,
            self.retries + other.retries,
            self.checks + other.checks,
            self.violations + other.violations,
        )


@dataclass(frozen=True)
class Scenario:
    """Something that is done to operators, again and again; a round is repeated by its seed.

    `rounds` is how many belong to a whole run. `shares`: whether the control plane stays as it is, so that other
    rounds can use it at the same time.
    """

    name: str
    run: Callable[[ControlPlane, int], Awaitable[Report]]
    rounds: int
    shares: bool = True

"""What the world tells the deciding half: reports, starts and ends of attempts, the same from a Pod, a process or a simulation."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Report:
    """One line of metrics at one step. `metrics` may hold NaN and infinities; `checkpoint` is a name, or empty."""

    step: int
    metrics: Mapping[str, float]
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt ended without its report: `counted` is True where the configuration is to blame, False for infrastructure."""

    reason: str
    message: str
    counted: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The trainer of this attempt began to run. `at`: seconds since the epoch."""

    trial: int
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class Reported:
    """This attempt reported. `at`: when it was received, seconds since the epoch."""

    trial: int
    attempt: int
    at: float
    report: Report


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing of this attempt runs any more; every report it made was told before.

    `fault` says what to make of it if the leg's result is missing; `seconds` is how long its trainer ran (0 if never).
    """

    trial: int
    attempt: int
    at: float
    fault: Fault
    seconds: float = field(default=0.0)


Event = Started | Reported | Ended

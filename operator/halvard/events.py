"""What the world tells the deciding half of attempts, the same from a Pod, a process or a simulation."""

from dataclasses import dataclass

from halvard_trainer.reports import Report


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt has no result: `counted` is True where the configuration is to blame, False for infrastructure."""

    reason: str
    message: str
    counted: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The trainer of this attempt began to run, holding `gpus` GPUs. `at`: seconds since the epoch."""

    trial: int
    attempt: int
    at: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Reported:
    """This attempt reported. `at`: when it was received, seconds since the epoch."""

    trial: int
    attempt: int
    at: float
    report: Report


@dataclass(frozen=True, slots=True)
class Stuck:
    """This attempt cannot start by itself (its image cannot be pulled, say): the study's fault, not the trial's.

    `outdated`: it was made from a template that the user has changed since.
    """

    trial: int
    attempt: int
    fault: Fault
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing of this attempt is believed to run any more, and every report it made was told before.

    `fault` says what to make of it if the leg's result is missing.
    """

    trial: int
    attempt: int
    at: float
    fault: Fault


Event = Started | Reported | Stuck | Ended

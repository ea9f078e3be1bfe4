"""What the world tells the deciding half of attempts, the same from a Pod, a process or a simulation."""

from dataclasses import dataclass

from halvard_trainer.reports import Report


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt has no result: `counted` is True where the configuration is to blame, False for infrastructure.

    `exit_code`: how its trainer ended by itself, 128 + n where it was killed by signal n; None where it did not.
    """

    reason: str
    message: str
    counted: bool
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """This attempt has a place to run in (its Pod a `node`); until then it only waits for one."""

    trial: int
    attempt: int
    node: str = ""


@dataclass(frozen=True, slots=True)
class Avoids:
    """This attempt waits for its place, and none of these nodes can be that."""

    trial: int
    attempt: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The trainer of this attempt began to run, holding `gpus` GPUs. `at`: seconds since the epoch."""

    trial: int
    attempt: int
    at: float
    gpus: float = 0.0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """This attempt reported. `at`: when it was received, seconds since the epoch; `pod`: by which Pod, its uid."""

    trial: int
    attempt: int
    at: float
    report: Report
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Stuck:
    """This attempt cannot start by itself (its image cannot be pulled, say): the study's fault, not the trial's."""

    trial: int
    attempt: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Outdated:
    """This attempt waits for its place or is stuck, and its template is not the one that the study has now."""

    trial: int
    attempt: int


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The trainer of this attempt has ended, and others of its containers go on: by itself its Pod may never end."""

    trial: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing of this attempt is believed to run any more, and every report it made was told before.

    `fault` says what to make of it if the leg's result is missing; `own` does where its Pod was deleted only because it
    was left behind.
    """

    trial: int
    attempt: int
    at: float
    fault: Fault
    node: str = ""
    own: Fault | None = None


Event = Placed | Avoids | Started | Reported | Stuck | Outdated | LeftBehind | Ended

"""What the deciding half asks for: actions to apply strictly in order.

So a crash leaves a prefix of them, which the next fold completes.
"""

from dataclasses import dataclass

from halvard.events import Fault, Reported
from halvard.trial import SavedCheckpoint, Trial


@dataclass(frozen=True, slots=True)
class CreateTrial:
    """Store a new trial: the decision to start it."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class SaveSpec:
    """Store `spec.budget` and `spec.decision`, with a version check: a promotion; `hot`: its attempt goes on."""

    trial: Trial
    hot: bool


@dataclass(frozen=True, slots=True)
class SaveStatus:
    """Store the trial's status, with a version check: what came of it."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class StartLeg:
    """Run attempt `trial.attempt` up to `trial.spec.budget`, from the checkpoint `resume` if there is one.

    `avoid`: the names of nodes that it is not to run on.
    """

    trial: Trial
    resume: SavedCheckpoint | None
    avoid: tuple[str, ...] = ()

    @property
    def start(self) -> int:
        """What is already done."""
        return self.resume.step if self.resume else 0


@dataclass(frozen=True, slots=True)
class StopLeg:
    """End this attempt's Pod or process, by name of its trial; already gone is success."""

    trial: Trial
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell people: becomes a Kubernetes Event on the study or a line of the log."""

    kind: str  # Normal or Warning
    reason: str
    message: str


Action = CreateTrial | SaveSpec | SaveStatus | StartLeg | StopLeg | Announce


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in order, and when to look again even if nothing happens (seconds since the epoch).

    `repeated`: reports that changed nothing, because their step was reported before or is lower than the last one.
    `faults`: why attempts ended that had no result, those that failed their trial and those whose leg runs again.
    `results`: the reports that brought one.
    """

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    repeated: int = 0
    faults: tuple[Fault, ...] = ()
    results: tuple[Reported, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt is to do after its report at `step`: train on until `budget`, or stop for the reason given."""

    step: int
    budget: int | None = None
    stop: str | None = None

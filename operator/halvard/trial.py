"""One trial: `crds/trial.yaml` as frozen values, and the few questions everyone asks of it.

`spec` is what was decided, `status` what came of it: the scheduler's whole state is a fold over these.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from halvard.model import Model, Value

TrialState = Literal["Pending", "Running", "Paused", "Complete", "Stopped", "Failed"]
FINISHED: frozenset[TrialState] = frozenset({"Complete", "Stopped", "Failed"})


class RungResult(Model):
    """The objective at one rung; `value` is None where it was not finite.

    `step` is where it was reported (at or beyond `budget`), `attempt` who reported it, `seconds` and `gpuSeconds` the
    time since the rung below. `order` is its place among all decisions and results of the study; `decided`, `decision`
    and `control` are those of the leg that brought it.
    """

    budget: int
    value: float | None = None
    step: int
    attempt: int = 0
    seconds: float
    gpu_seconds: float = 0.0
    at: datetime
    order: int = 0
    decided: int = 0
    decision: str = ""
    control: bool = False


class SavedCheckpoint(Model):
    """The last acknowledged checkpoint: its name in the directory of the attempt that wrote it, and its step.

    `pod` is the uid of that attempt's Pod: it is part of the directory's name where there is one.
    """

    name: str
    step: int
    attempt: int
    pod: str = ""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class CurvePoint:
    """One point of the thinned learning curve; `value` is None where the objective was not finite.

    No `Model`: twenty of those a trial would be more than half of the operator's memory.
    """

    step: int
    value: float | None = None


class Lost(Model):
    """What attempts took that ended without a result: time given to faults."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0


class TrialSpec(Model):
    """What was decided: the configuration, and how far it may train in total; a promotion raises that budget.

    `order` is the place of the latest decision among all decisions and results of the study, from 1. `control`: it was
    not due, but drawn at random.
    """

    index: Annotated[int, Field(ge=0)]
    bracket: Annotated[int, Field(ge=0)] = 0
    budget: Annotated[int, Field(ge=1)]
    parameters: Mapping[str, Value]
    decision: str = ""
    order: int = 0
    control: bool = False


class TrialStatus(Model):
    """What came of it. Only the Pod that carries the number `attempt` is believed; a pause already raises it.

    `step` is the last that its attempt reported, 0 before that. `checkpoint` is the last one, `furthest` the highest
    step of any: an attempt may start over. `faults`: how often its legs had to run again; `retries`: how often in a row
    without progress, which is a checkpoint beyond `furthest`, or a result. `order` is the place of its failing or
    stopping among all decisions and results of the study, `exit_code` what its trainer failed with.
    """

    state: TrialState = "Pending"
    message: str = ""
    attempt: int = 1
    step: int = 0
    rungs: tuple[RungResult, ...] = ()
    checkpoint: SavedCheckpoint | None = None
    furthest: int = 0
    curve: tuple[CurvePoint, ...] = ()
    faults: int = 0
    retries: int = 0
    lost: Lost = Lost()
    order: int = 0
    exit_code: int | None = None


class Trial(Model):
    """A trial, and the identity and version the store gave it (`uid` and `version` are empty outside a cluster)."""

    name: str
    spec: TrialSpec
    status: TrialStatus = TrialStatus()
    uid: str = ""
    version: str = Field(default="", description="resourceVersion this value was read at")

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], extra: Literal["ignore"] | None = None) -> Self:
        """Returns the Trial that the API server (or a file) holds; raises pydantic's ValidationError if it is none.

        `extra`: whether to pass over fields that are not known.
        """
        metadata = manifest["metadata"]
        read = {
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "version": metadata.get("resourceVersion", ""),
            "spec": manifest.get("spec"),
            "status": manifest.get("status") or {},
        }
        return cls.model_validate(read, extra=extra)

    @property
    def index(self) -> int:
        """The trial's place in the study, from 0: its identity for the sampler."""
        return self.spec.index

    @property
    def attempt(self) -> int:
        """The number of the only Pod that is believed."""
        return self.status.attempt

    @property
    def done(self) -> int:
        """The budget of the highest rung with a result, 0 before the first."""
        return self.status.rungs[-1].budget if self.status.rungs else 0

    @property
    def finished(self) -> bool:
        """Whether nothing will ever run for it again."""
        return self.status.state in FINISHED

    @property
    def assigned(self) -> bool:
        """Whether it has a leg to run: a budget above its highest result."""
        return not self.finished and self.spec.budget > self.done

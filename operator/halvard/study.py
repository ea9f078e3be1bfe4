"""The Study a user writes: `crds/study.yaml` as frozen values, the only place that knows its field names.

Rules that span fields carry the same words here as the CEL rules of the CRD; `halvard.invalid` gives both one voice.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Value = str | int | float | bool
"""One value of one parameter."""

Goal = Literal["minimize", "maximize"]
Scale = Literal["linear", "log"]


class Model(BaseModel):
    """A frozen value written in camelCase, which refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Objective(Model):
    """What is to be optimised; the study ends early once a rung's result reaches `target`."""

    metric: str
    goal: Goal
    target: float | None = None


class FloatRange(Model):
    """A real number in [min, max], drawn evenly on `scale`, on the grid min + k * step where there is a step."""

    min: float
    max: float
    scale: Scale = "linear"
    step: float | None = None


class IntRange(Model):
    """An integer in [min, max], drawn evenly on `scale`, on the grid min + k * step."""

    min: int
    max: int
    scale: Scale = "linear"
    step: int | None = None


class Parameter(Model):
    """One axis of the search space; with `when`, it exists only while every parent named there has one of the values given."""

    name: str
    float: FloatRange | None = None
    int: IntRange | None = None
    choice: tuple[Value, ...] | None = None
    when: Mapping[str, tuple[Value, ...]] = Field(default_factory=dict)


class RandomSampler(Model):
    """Draws every parameter independently."""


class GridSampler(Model):
    """Goes through every combination in order, the last parameter fastest."""


class Sampler(Model):
    """Picks parameters: exactly one of the fields."""

    random: RandomSampler | None = None
    grid: GridSampler | None = None


class Asha(Model):
    """Asynchronous successive halving (Li et al., MLSys 2020): budgets minBudget * reductionFactor^k, capped by maxBudget."""

    min_budget: int = 1
    max_budget: int
    reduction_factor: int = 3


class Scheduler(Model):
    """Picks who runs next, and how far: exactly one of the fields."""

    asha: Asha | None = None


class Limits(Model):
    """What the whole study may use. `duration` is text such as `12h` or `1h30m`."""

    trials: int | None = None
    gpu_hours: float | None = None
    duration: str | None = None
    failed_trials: int = 20


class PersistentVolumeClaim(Model):
    """The claim that holds the checkpoints, in the study's namespace."""

    claim_name: str


class Checkpoint(Model):
    """Where checkpoints are kept between legs."""

    persistent_volume_claim: PersistentVolumeClaim


class Stdout(Model):
    """Reads reports from what the trainer prints: `pattern` is a Python regular expression whose named groups are the metrics (and `step`)."""

    pattern: str


class Collector(Model):
    """How reports leave a program that does not write `HALVARD_REPORTS`."""

    stdout: Stdout | None = None


class StudySpec(Model):
    """What the user asked for."""

    objective: Objective
    parameters: tuple[Parameter, ...]
    sampler: Sampler = Sampler(random=RandomSampler())
    scheduler: Scheduler
    parallelism: Annotated[int, Field(ge=0)] = 1
    limits: Limits
    seed: int = 0
    suspend: bool = False
    checkpoint: Checkpoint | None = None
    collector: Collector = Collector()
    template: dict[str, Any]


StudyState = Literal["Pending", "Running", "Suspended", "Complete", "Failed"]


class Condition(Model):
    """A metav1.Condition; `lastTransitionTime` moves only when `status` does."""

    type: Literal["Complete", "Failed", "Suspended", "Degraded"]
    status: Literal["True", "False"]
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int = 0


class TrialCounts(Model):
    """Trials by state."""

    total: int = 0
    pending: int = 0
    running: int = 0
    paused: int = 0
    complete: int = 0
    stopped: int = 0
    failed: int = 0


class BestTrial(Model):
    """The best finite result of the highest rung that has one."""

    trial: str
    value: float
    budget: int
    parameters: Mapping[str, Value]


class RungStatus(Model):
    """One rung: results so far, how many of those trials were given a higher budget, and how many train towards it now."""

    budget: int
    completed: int = 0
    promoted: int = 0
    running: int = 0


class Hours(Model):
    """Hours by outcome: of legs whose trial went on (`promoted`), finished (`complete`), waits or was not taken further (`paused`), failed, or that faults took (`lost`)."""

    total: float = 0.0
    promoted: float = 0.0
    complete: float = 0.0
    paused: float = 0.0
    failed: float = 0.0
    lost: float = 0.0


class StudyStatus(Model):
    """Where the study stands: aggregates only, so its size does not grow with the trials."""

    state: StudyState = "Pending"
    observed_generation: int = 0
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    trials: TrialCounts = TrialCounts()
    best: BestTrial | None = None
    highest_rung: int = 0
    rungs: tuple[RungStatus, ...] = ()
    training_hours: Hours = Hours()
    gpu_hours: Hours = Hours()
    used: Mapping[str, str] = Field(default_factory=dict)


class Study(Model):
    """A Study and the identity the store gave it (`uid` is empty outside a cluster)."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    deleting: bool = False
    spec: StudySpec
    status: StudyStatus = StudyStatus()

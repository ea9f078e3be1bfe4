"""The status of a Study: that section of `crds/study.yaml` as frozen values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from halvard.model import Model, Value

StudyState = Literal["Pending", "Running", "Suspended", "Complete", "Failed"]


class Condition(Model):
    """A metav1.Condition; `lastTransitionTime` moves only when `status` does."""

    type: Literal["Complete", "Failed", "Suspended", "Degraded", "LateBloomers"]
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


class RankAgreement(Model):
    """Kendall's tau-b of values at two budgets, with its 90 % interval (1: the same order, 0: none, -1: reversed)."""

    trials: int
    tau: float
    low: float
    high: float


class Agreement(RankAgreement):
    """How far a rung ranks trials as the one at `budget` does, over all with finite results at both.

    `better`: the same among the better half of them, by the value at `budget`; absent where that half is too few.
    """

    budget: int
    better: RankAgreement | None = None


class RungStatus(Model):
    """One rung: results so far, how many of those trials got a higher budget, and how many train towards it now.

    `not_finite` of the results are not; `failed` trials failed on the way to it. `agreement`: with the next rung, and
    with the highest one that has enough trials in common.
    """

    budget: int
    completed: int = 0
    promoted: int = 0
    running: int = 0
    not_finite: int = 0
    failed: int = 0
    agreement: tuple[Agreement, ...] = ()


class Search(Model):
    """What picks parameters and promotes now, in the words of the latest new trial and the latest promotion."""

    sampler: str = ""
    scheduler: str = ""


class ControlShare(Model):
    """What controls tell: see `halvard.control`.

    How many were stopped early, how many of them were drawn and trained on all the same, how many of those were good
    enough; the estimated share of those stopped that were stopped too soon, with its 90 % interval, absent while none
    was drawn.
    """

    stopped: int = 0
    drawn: int = 0
    good: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None


class ControlRung(ControlShare):
    """The same of those stopped at one rung."""

    budget: int


class ControlStatus(Model):
    """What early stopping loses, for people and in figures."""

    message: str
    total: ControlShare
    rungs: tuple[ControlRung, ...] = ()


class Hours(Model):
    """Hours by outcome.

    Of legs whose trial went on (`promoted`), finished (`complete`), waits or was not taken further (`paused`), or
    failed, and what faults took (`lost`).
    """

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
    control: ControlStatus | None = None
    search: Search = Search()
    training_hours: Hours = Hours()
    gpu_hours: Hours = Hours()
    used: Mapping[str, str] = Field(default_factory=dict)

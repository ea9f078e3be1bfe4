"""What is left of a study, and the order in which it happened: what the rules of this package are held against."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from typing_extensions import override

from halvard.study import Study
from halvard.trial import Trial

Lives = Literal["orders", "sequence", "once", "rungs", "brackets", "states", "numbers", "limit", "parallelism"]
Promotions = Literal["merit", "precedence", "control", "stopping"]
Attempts = Literal["attempts", "believed", "reports", "saved", "said", "time", "faults"]
Stored = Literal["versions", "prefix", "decided", "idle", "quiet", "leading", "status", "metrics"]
Rule = Literal[Lives, Promotions, Attempts, Stored]
"""What a violation can be of."""


@dataclass(frozen=True, slots=True)
class Pod:
    """An attempt of a trial: its trainer held `gpus` from `began` until `ended`, in seconds since the epoch.

    `ended` is None where nobody could see it end, `began` infinity where nobody saw it begin. `fenced`: when the trial
    was stored with a higher number, or as finished: from then on nothing that it says is believed; None: never.
    `known`: when the store was first told that it began, by default at once; until then its sidecar's clock is the only
    one. `drained`: until when its sidecar could speak, by default its trainer's end. `disturbed`: when it was first
    said to be disrupted, or deleted. `created`, `superseded` (what fenced it) and `gone`: the places of that among all
    writes of its store, 0 where they are not known, or where it never was. `last`: its last words, a step and the
    objective there, None where that is not finite.
    """

    trial: int
    attempt: int
    uid: str
    began: float
    ended: float | None
    fenced: float | None = None
    gpus: float = 0.0
    known: float | None = None
    drained: float | None = None
    disturbed: float | None = None
    created: int = 0
    superseded: int = 0
    gone: int = 0
    last: tuple[int, float | None] | None = None

    @property
    def seen(self) -> bool:
        """Whether somebody saw it begin."""
        return self.began < float("inf")

    @property
    def believed_until(self) -> float:
        """When it ended, or was not believed any more; infinity where neither is known."""
        return _earliest(self.ended, self.fenced)

    @property
    def heard_until(self) -> float:
        """The same, for its sidecar: what it has not delivered yet it says after its trainer has ended."""
        return _earliest(self.ended if self.drained is None else self.drained, self.fenced)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A report that was taken for a trial's result: it came at `at`, and as its sender says from the Pod with this uid.

    Only who heard it can know that; what is stored says which attempt it was taken for.
    """

    trial: int
    uid: str
    step: int
    at: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A report that a Pod made: the objective there, None where it is not finite."""

    uid: str
    step: int
    value: float | None


@dataclass(frozen=True, slots=True)
class Write:
    """A write of an operator that the store took: its place among all, who made it, of what (`create trials/s-0001`).

    `changed`: whether anything is different since.
    """

    place: int
    by: str
    what: str
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """From this place on the operators' Lease names `holder` (empty: nobody); `by` wrote that."""

    place: int
    holder: str
    by: str


@dataclass(frozen=True, slots=True)
class History:
    """A study and its Trials as they are stored now; no Trial was deleted.

    The rest is optional, and rules that need it are held where it is given. `parallelism`, `limit`: the highest that
    `parallelism` and `limits.trials` ever were (by default the present ones). `pods`, `accepted`: all there were.
    `sent`: all reports that Pods made, by their own words. `versions`: every state in which a Trial was ever stored, in
    order. `writes`, `leases`: all of the operators. `quiet`: what they wrote when nothing was left to do, above all
    after a restart. `undisturbed`: the Trials of the same study, its reports in the same order, without a fault.
    `scraped`: the operator's `halvard_gpu_seconds` at the end, by rung and outcome. `precision`: of the times of Pods,
    in seconds. `late`: what Pods did was perhaps heard of any time later, so that seconds are missing or
    counted too long.
    """

    study: Study
    trials: tuple[Trial, ...]
    parallelism: int | None = None
    limit: int | None = None
    pods: tuple[Pod, ...] | None = None
    accepted: tuple[Accepted, ...] | None = None
    sent: tuple[Sent, ...] | None = None
    versions: tuple[Trial, ...] | None = None
    writes: tuple[Write, ...] | None = None
    leases: tuple[Held, ...] | None = None
    quiet: tuple[str, ...] | None = None
    undisturbed: tuple[Trial, ...] | None = None
    scraped: Mapping[tuple[int, str], float] | None = None
    precision: float = 0.0
    late: bool = False

    @property
    def over(self) -> bool:
        """Whether the study has ended."""
        return self.study.status.state in ("Complete", "Failed")


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that does not hold, of which trial (None: of the study), and the numbers."""

    rule: Rule
    trial: int | None
    message: str

    @override
    def __str__(self) -> str:
        """Returns it for people."""
        return f"{self.rule}: " + ("" if self.trial is None else f"trial {self.trial}: ") + self.message


@dataclass(frozen=True, slots=True)
class Decided:
    """A trial that had trained until `start` (0: a new one) was to train until `budget`."""

    order: int
    trial: int
    bracket: int
    start: int
    budget: int
    control: bool
    why: str


@dataclass(frozen=True, slots=True)
class Result:
    """A leg brought its result, None where it is not finite."""

    order: int
    trial: int
    bracket: int
    budget: int
    value: float | None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A trial failed, or was stopped."""

    order: int
    trial: int


Event = Decided | Result | Withdrawn


def life(trial: Trial) -> list[Event]:
    """Returns what happened to a trial, one after the other, whatever the orders say."""
    spec, events, start = trial.spec, list[Event](), 0
    for result in trial.status.rungs:
        events += [
            Decided(
                result.decided, spec.index, spec.bracket, start, result.budget, result.control, why=result.decision
            ),
            Result(result.order, spec.index, spec.bracket, result.budget, result.value),
        ]
        start = result.budget
    if spec.budget > start:
        events.append(
            Decided(spec.order, spec.index, spec.bracket, start, spec.budget, spec.control, why=spec.decision)
        )
    if trial.status.state in ("Failed", "Stopped"):
        events.append(Withdrawn(trial.status.order, spec.index))
    return events


def timeline(trials: Iterable[Trial]) -> list[Event]:
    """Returns what happened to all of them, by the orders."""
    return sorted((event for trial in trials for event in life(trial)), key=lambda event: event.order)


def named(rules: Iterable[str]) -> frozenset[Rule]:
    """Returns rules by their names; raises ValueError naming what is none."""
    known: dict[str, Rule] = {rule: rule for rule in get_args(Rule)}
    if strangers := sorted(set(rules) - known.keys()):
        raise ValueError(f"{', '.join(strangers)}: no such rule of the history checker; there are {', '.join(known)}")
    return frozenset(known[rule] for rule in rules)


def _earliest(*times: float | None) -> float:
    return min((at for at in times if at is not None), default=float("inf"))

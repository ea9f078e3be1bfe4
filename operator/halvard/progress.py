"""One study in memory: its trials as they are stored, the tuner folded from them, and which attempts exist.

All of it can be thrown away at any moment and folded again from the Trials; `halvard.decide` is what advances it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from halvard.events import Fault
from halvard.nodes import Leg, Nodes
from halvard.plan import Verdict
from halvard.samplers import MakeSampler
from halvard.study import MOST_TRIALS, Study, StudySpec
from halvard.trial import Trial
from halvard.tuner import Tuner

LONGEST_BLOCK = 60.0
LONGEST_BREAK = 600.0
MOST_BARREN = 10  # attempts in a row that the infrastructure ended before they could report
TOO_MANY_FAULTS = "TooManyFaults"
TEMPLATE_CHANGED = "the template was changed"
_NONE: Mapping[tuple[int, int], bool] = MappingProxyType({})


@dataclass(slots=True)
class Live:
    """An attempt that exists; `placed`: it has a place to run in, on `node`; none that it `avoids` can be that.

    `number`: how many attempts of the study had got their place by then, with this one; 0 while that is not known.
    `since`: from when its time is still to be accounted for; `until`: when it had ended, where that is known by now;
    `step`: its last report.
    """

    placed: bool = False
    number: int = 0
    node: str = ""
    avoids: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    gpus: float = 0.0
    step: int = 0
    stuck: Fault | None = None
    stopping: str = ""

    def ran_until(self, now: float) -> float:
        """Until when it has run."""
        return now if self.until is None else self.until

    def used(self, at: float) -> tuple[float, float]:
        """Seconds and GPU-seconds still to be accounted for, as they would be stored: a fold knows no more digits."""
        seconds = 0.0 if self.since is None else round(max(0.0, at - self.since), 3)
        return seconds, round(seconds * self.gpus, 3)


@dataclass(slots=True)
class Block:
    """No further legs are started for now; one is tried again at `until`.

    Where the store refuses them, `probing` says that one was tried, and the others follow once it is taken; whatever
    ends may make room. A `breaker` is there because legs come to nothing: it is over once one that began since has
    reported, and until then one more is tried at a time, at ever longer intervals.
    """

    reason: str
    message: str
    until: float
    delay: float = 1.0
    probing: bool = False

    @property
    def breaker(self) -> bool:
        """Whether only a report ends it."""
        return self.reason == TOO_MANY_FAULTS

    def probe(self, now: float) -> None:
        """One leg is tried."""
        if self.breaker:
            self.delay = min(LONGEST_BREAK, 2 * self.delay)
            self.until = now + self.delay
        else:
            self.probing = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a study ended: the condition that becomes true, with its reason and message."""

    condition: Literal["Complete", "Failed"]
    reason: str
    message: str


@dataclass(slots=True)
class Unsaved:
    """Trials whose progress is not stored yet, and by when it must be: what a crash would lose is only cosmetic."""

    due: dict[int, float] = field(default_factory=dict)

    def note(self, index: int, by: float) -> None:
        """Store this trial by then, or earlier if that was said before."""
        self.due[index] = min(by, self.due.get(index, by))


class Progress:
    """The state of one study."""

    def __init__(
        self,
        study: Study,
        trials: Iterable[Trial] = (),
        running: Mapping[tuple[int, int], bool] = _NONE,
        *,
        resumable: bool | None = None,
        sampler: MakeSampler | None = None,
    ) -> None:
        """Fold the stored trials.

        `running` names the (trial index, attempt) pairs that exist in the world now, and whether each has a place to
        run in; `resumable` says whether checkpoints outlive attempts (by default where the study has a claim for them);
        `sampler` makes what takes the place of the study's own.
        """
        self.study = study
        self.trials = {trial.index: trial for trial in trials}
        self.tuner = Tuner(_with_room(study.spec, self.trials), self.trials.values(), sampler)
        self.resumable = study.spec.checkpoint is not None if resumable is None else resumable
        self.assigned = {index for index, trial in self.trials.items() if trial.assigned}
        self.awaiting = {index for index, trial in self.trials.items() if _awaits_decision(trial)}
        self.live: dict[int, Live] = {}
        self.leaving: dict[tuple[int, int], float | None] = {}
        for (index, attempt), placed in running.items():
            trial = self.trials.get(index)
            if trial and trial.attempt == attempt and not trial.finished:
                self.live[index] = Live(placed)
            else:
                self.leaving[index, attempt] = None
        self.fresh = True  # no turn has been taken since the fold
        self.retry_at: dict[int, float] = {}
        self.nodes = Nodes()
        self.placings = 0  # attempts that got their place
        self.barren: list[tuple[int, int]] = []  # those that came to nothing, with their trials; see `heard`
        self.unsaved = Unsaved()
        self.failed = {index for index, trial in self.trials.items() if trial.status.state == "Failed"}
        self.gpu_seconds_spent = sum(_gpu_seconds(trial) for trial in self.trials.values())
        self.target_reached = next(
            (t.name for t in self.trials.values() for r in t.status.rungs if self.hits_target(r.value)), ""
        )
        self.sampler_failed = False  # at the latest new trial
        self.block: Block | None = None
        self.started_at = study.status.start_time.timestamp() if study.status.start_time else None
        self.suspended = any(c.type == "Suspended" and c.status == "True" for c in study.status.conditions)
        self.outcome = _stored_outcome(study)
        self.ended_at = study.status.completion_time.timestamp() if study.status.completion_time else None

    def update_study(self, study: Study) -> None:
        """Take over a study that its user changed: parallelism, limits, suspension, template."""
        if study.spec.template != self.study.spec.template:
            self.block = None
            self.barren.clear()
            for live in self.live.values():
                if live.stuck or not live.placed:
                    live.stopping = live.stopping or TEMPLATE_CHANGED
        self.study = study
        self.tuner.spec = _with_room(study.spec, self.trials)

    def stored(self, trial: Trial) -> None:
        """Take over the identity and version that the store gave to a trial just written."""
        known = self.trials[trial.index]
        self.trials[trial.index] = known.model_copy(update={"uid": trial.uid, "version": trial.version})

    def refused(self, index: int, reason: str, message: str, now: float) -> None:
        """The store would not take a leg just decided on: it waits, and so do all others, until one is tried again."""
        self.live.pop(index, None)
        if self.breaker_open:
            return  # one leg is tried at a time already
        delay = self.block.delay if self.block else 1.0
        if self.block and self.block.probing:  # the one that was tried again: the next has to wait longer
            delay = min(LONGEST_BLOCK, delay * 2)
        self.block = Block(reason, message, until=now + delay, delay=delay)

    @property
    def breaker_open(self) -> bool:
        """Whether no further legs are started because they come to nothing."""
        return self.block is not None and self.block.breaker

    def placed(self, live: Live, leg: Leg, node: str) -> None:
        """An attempt has a place to run in."""
        live.placed = True
        if not live.number:
            self.placings += 1
            live.number = self.placings
        if node and not live.node:
            live.node = node
            self.nodes.came(node, leg)

    def heard(self, live: Live, leg: Leg) -> None:
        """An attempt has reported: so what got its place with it could run, whatever came to nothing before.

        It says nothing of what came after, or one that goes on through an outage would hide it.
        """
        self.nodes.reported(live.node, leg)
        if self.barren:
            self.barren = [(number, trial) for number, trial in self.barren if number > live.number]
        if self.breaker_open and len(self.barren) < MOST_BARREN:
            self.block = None

    def verdict(self, index: int, attempt: int, step: int) -> Verdict | None:
        """What this attempt is to do after its report at `step`; None while that is not decided."""
        trial = self.trials.get(index)
        if trial is None:
            return Verdict(step, stop="its trial does not exist any more")
        if trial.finished or attempt != trial.attempt:
            return Verdict(step, stop=trial.status.message or "another attempt took over")
        live = self.live.get(index)
        if live is None or step > live.step or index in self.awaiting:
            return None
        return Verdict(step, budget=trial.spec.budget)

    def gpu_seconds(self, now: float) -> float:
        """GPU-seconds used so far, those of running attempts included: the same, to the digit, after a fold."""
        running = sum(live.used(live.ran_until(now))[1] for live in self.live.values())
        return round(self.gpu_seconds_spent + running, 3)

    def hits_target(self, value: float | None) -> bool:
        """Whether a result is as good as the objective's target; never without a target."""
        objective = self.study.spec.objective
        if objective.target is None or value is None:
            return False
        return objective.sign * value <= objective.sign * objective.target


def _awaits_decision(trial: Trial) -> bool:
    """Whether its result was stored, but the decision on it was not: a crash came between the two."""
    return trial.status.state in ("Pending", "Running") and not trial.assigned


def _with_room(spec: StudySpec, trials: Collection[int]) -> StudySpec:
    """The spec for the tuner, which goes by numbers: for each trial that somebody deleted it may give one more."""
    limit, deleted = spec.limits.trials, max(trials, default=-1) + 1 - len(trials)
    if limit is None or not deleted:
        return spec
    return spec.with_trials(min(limit + deleted, MOST_TRIALS))


def _gpu_seconds(trial: Trial) -> float:
    return sum(result.gpu_seconds for result in trial.status.rungs) + trial.status.lost.gpu_seconds


def _stored_outcome(study: Study) -> Outcome | None:
    for condition in study.status.conditions:
        if condition.type in ("Complete", "Failed") and condition.status == "True":
            return Outcome(condition.type, condition.reason, condition.message)
    return None

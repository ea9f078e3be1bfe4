"""A world in virtual time: it stores, places, runs and breaks attempts, and can lose the operator at any action."""

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from halvard.decide import decide
from halvard.events import Avoids, Ended, Event, Fault, Placed, Reported, Started
from halvard.plan import Action, Announce, CreateTrial, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.progress import Progress
from halvard.starting import LOOK_AHEAD
from halvard.status import study_status
from halvard.study import Study
from halvard.trial import Trial
from halvard_trainer.reports import Report
from history import Accepted, History, Pod, Sent, assert_sound
from unit.reference.stopping import median_stops, patience_stops

LEFT = Fault("MetricsUnavailable", "exit code 0 without a report at the budget", counted=True)
CRASHED = Fault("NonZeroExit", "exit code 1", counted=True)
DELETED = Fault("PodDeleted", "the Pod was deleted", counted=False)
EVICTED = Fault("Evicted", "the node was low on memory", counted=False)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class OperatorLostError(Exception):
    """The operator died between two actions."""


def study(**spec: Any) -> Study:
    """A small study over one parameter; `spec` overrides fields (camelCase)."""
    base: dict[str, Any] = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": [{"name": "x", "float": {"min": 0.0, "max": 1.0}}],
        "sampler": {"random": {}},
        "scheduler": {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
        "parallelism": 3,
        "limits": {"trials": 12},
        "template": {"spec": {"containers": [{"name": "trainer", "image": "trainer"}]}},
    }
    return Study.model_validate({"name": "s", "uid": "u", "spec": base | spec})


def loss(trial: Trial, step: int) -> float:
    """The scripted learning curve: better with x near 0.3 and with every step."""
    x = trial.spec.parameters["x"]
    assert isinstance(x, float)
    return (x - 0.3) ** 2 + 1.0 / step


@dataclass(slots=True)
class Attempt:
    """An attempt that exists: `waiting` is the step whose verdict it awaits, `pushed` those before not answered yet."""

    trial: Trial
    number: int
    budget: int
    step: int
    placed: bool = False
    running: bool = False
    waiting: int | None = None
    pushed: list[int] = field(default_factory=list)
    uid: str = ""
    node: str = ""
    avoid: tuple[str, ...] = ()

    @property
    def unanswered(self) -> list[int]:
        """The steps of the reports that it pushes again to an operator that takes over."""
        return self.pushed + ([] if self.waiting is None else [self.waiting])


@dataclass
class World:
    """Runs one study to its end.

    Attempts get one of the `places` in the order in which they were started, each `delay(trial, attempt)` seconds after
    it at the earliest. `fault(trial, attempt, step)` may break an attempt; the operator dies at the actions counted in
    `lose_at`. With `nodes` there are so many places on each, and the node with most of them free is taken;
    `broken(node, now)` ends whatever starts on it at once.
    """

    study: Study
    curve: Callable[[Trial, int], float] = loss
    fault: Callable[[int, int, int], Fault | None] = lambda _trial, _attempt, _step: None
    pace: Callable[[Trial], float] = lambda _trial: 1.0
    places: float = math.inf
    nodes: Mapping[str, int] = field(default_factory=dict)
    broken: Callable[[str, float], Fault | None] = lambda _node, _now: None
    delay: Callable[[int, int], float] = lambda _trial, _attempt: 0.0
    lose_at: frozenset[int] = frozenset()
    resumable: bool = True
    now: float = EPOCH
    stored: dict[int, Trial] = field(default_factory=dict)
    attempts: dict[tuple[int, int], Attempt] = field(default_factory=dict)
    queue: list[tuple[int, int]] = field(default_factory=list)  # may have a place as soon as there is one
    over: dict[tuple[int, int], Fault] = field(default_factory=dict)  # ended, but still there to be looked at
    told: dict[tuple[int, int], int] = field(default_factory=dict)  # the last step that each attempt reported
    ran_on: dict[tuple[int, int], str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    pods: dict[str, Pod] = field(default_factory=dict)  # by uid, all that ever began
    sent: list[Sent] = field(default_factory=list)  # by attempts, whoever heard of it
    accepted: list[Accepted] = field(default_factory=list)
    versions: list[Trial] = field(default_factory=list)  # every state in which a trial was stored
    actions: list[Action] = field(default_factory=list)
    started: list[tuple[int, int]] = field(default_factory=list)
    restarts: int = 0
    applied: int = 0
    wake: float | None = None

    def __post_init__(self) -> None:
        self.timeline: list[tuple[float, int, Callable[[], list[Event]]]] = []
        self.order = itertools.count()
        self.progress = self.fold()

    def fold(self) -> Progress:
        running = {key: attempt.placed for key, attempt in self.attempts.items()} | dict.fromkeys(self.over, True)
        return Progress(self.study, self.stored.values(), running, resumable=self.resumable)

    def run(self, turns: int = 20_000) -> "World":
        """Turns the crank until the study has ended and nothing runs any more."""
        self.turn([])
        for _ in range(turns):
            if self.progress.outcome and not self.attempts:
                assert_sound(self.history())
                return self
            wake = self.wake
            if self.timeline and (wake is None or self.timeline[0][0] <= wake):
                self.now, _, happen = heapq.heappop(self.timeline)
                self.turn(happen())
            elif wake is not None:
                self.now = max(self.now, wake)
                self.turn([])
            else:
                raise AssertionError("the study stalled: nothing runs, nothing is to come")
        raise AssertionError(f"no end after {turns} turns")

    def turn(self, events: list[Event]) -> None:
        """One turn; where the operator dies in it, the next one folds the store and is told again what stands."""
        plan = decide(self.progress, events, self.now)
        self.wake = plan.wake_at
        self.accepted += [Accepted(result.trial, result.pod, result.report.step, result.at) for result in plan.results]
        try:
            for action in plan.actions:
                self.applied += 1
                if self.applied in self.lose_at:
                    raise OperatorLostError
                self.apply(action)
        except OperatorLostError:
            self.recover()
            return
        self.faults += plan.faults
        self.study = self.study.model_copy(update={"status": study_status(self.progress, self.now)})
        self.answer()

    def recover(self) -> None:
        self.restarts += 1
        for uid, pod in self.pods.items():  # Pods that are gone, and whose end was not stored
            if pod.fenced is None and (pod.trial, pod.attempt) not in self.over:
                self.pods[uid] = replace(pod, ended=None)
        self.progress = self.fold()
        again: list[Event] = [
            Started(i, n, self.pods[attempt.uid].began, 1.0, attempt.node)
            if attempt.running
            else Placed(i, n, attempt.node)
            for (i, n), attempt in self.attempts.items()
            if attempt.placed
        ]
        again += [Avoids(*key, a.avoid) for key, a in self.attempts.items() if a.avoid and not a.placed]
        pushed_again: list[Event] = [
            Reported(i, n, self.now, self.report(a.trial, step), a.uid)
            for (i, n), a in self.attempts.items()
            for step in a.unanswered
        ]
        self.turn(again + pushed_again + self.ends())

    def apply(self, action: Action) -> None:
        self.actions.append(action)
        match action:
            case CreateTrial(trial):
                assert trial.index not in self.stored
                self.stored[trial.index] = trial
            case SaveSpec(trial):
                known = self.stored[trial.index]
                assert trial.spec.budget > known.spec.budget
                self.stored[trial.index] = known.model_copy(update={"spec": trial.spec})
            case SaveStatus(trial):
                self.stored[trial.index] = self.stored[trial.index].model_copy(update={"status": trial.status})
                self.fence(trial)
            case StartLeg(trial):
                self.start(action, trial)
            case StopLeg(trial, number):
                if (trial.index, number) in self.attempts:
                    self.later(0.5, lambda: self.end(trial.index, number, DELETED))
            case Announce():
                pass
        if isinstance(action, CreateTrial | SaveSpec | SaveStatus):
            self.versions.append(self.stored[action.trial.index])

    def start(self, leg: StartLeg, trial: Trial) -> None:
        key = (trial.index, trial.attempt)
        assert self.stored[trial.index].attempt == trial.attempt, "only a stored attempt may run"
        if key in self.attempts:
            return  # already exists: success
        self.started.append(key)
        self.attempts[key] = Attempt(trial, trial.attempt, trial.spec.budget, leg.start, avoid=leg.avoid)
        assert len(self.unplaced()) <= LOOK_AHEAD, "no more wait for a place than may"
        self.later(self.delay(*key), lambda: self.wants_place(key))

    def unplaced(self) -> list[tuple[int, int]]:
        return [key for key, attempt in self.attempts.items() if not attempt.placed]

    def wants_place(self, key: tuple[int, int]) -> list[Event]:
        self.queue.append(key)
        return self.fill()

    def fill(self) -> list[Event]:
        """Gives free places to those that wait."""
        self.queue = [key for key in self.queue if key in self.attempts]
        free = self.places - sum(attempt.placed for attempt in self.attempts.values())
        placed = list[tuple[int, int]]()
        for key in self.queue:
            node = self.free_node(self.attempts[key].avoid)
            if len(placed) < free and node is not None:
                self.attempts[key].placed, self.attempts[key].node = True, node
                self.ran_on[key] = node
                placed.append(key)
                self.later(0.2, partial(self.begin, key))
        self.queue = [key for key in self.queue if key not in placed]
        return [Placed(*key, self.ran_on[key]) for key in placed]

    def free_node(self, avoid: tuple[str, ...]) -> str | None:
        """The node with most places free, of those that are not to be avoided; "" in a world without nodes."""
        if not self.nodes:
            return ""
        taken = Counter(attempt.node for attempt in self.attempts.values() if attempt.placed)
        free = {name: places - taken[name] for name, places in self.nodes.items() if name not in avoid}
        best = max(free, key=free.__getitem__, default=None)
        return best if best is not None and free[best] > 0 else None

    def begin(self, key: tuple[int, int]) -> list[Event]:
        attempt = self.attempts.get(key)
        if attempt is None:
            return []
        attempt.running, attempt.uid = True, f"{key}/{len(self.pods)}"
        self.pods[attempt.uid] = Pod(*key, attempt.uid, began=self.now, ended=None, gpus=1.0)
        self.fence(self.stored[key[0]])
        started = Started(*key, self.now, 1.0, attempt.node)
        if broken := self.broken(attempt.node, self.now):
            return [started, *self.end(*key, broken)]
        self.later(self.pace(attempt.trial), partial(self.step, key))
        return [started]

    def step(self, key: tuple[int, int]) -> list[Event]:
        attempt = self.attempts.get(key)
        if attempt is None:
            return []
        attempt.step += 1
        if broken := self.fault(*key, attempt.step):
            return self.end(*key, broken)
        if attempt.step >= attempt.budget:
            attempt.waiting = attempt.step
        else:
            self.later(self.pace(attempt.trial), lambda: self.step(key))
            if self.study.spec.scheduler.interval:  # others are answered at once, and lost with the operator
                attempt.pushed.append(attempt.step)
        self.told[key] = attempt.step
        value = self.curve(attempt.trial, attempt.step)
        self.sent.append(Sent(attempt.uid, attempt.step, value if math.isfinite(value) else None))
        return [Reported(*key, self.now, self.report(attempt.trial, attempt.step), attempt.uid)]

    def report(self, trial: Trial, step: int) -> Report:
        return Report(step, {"loss": self.curve(trial, step)}, f"step-{step}")

    def answer(self) -> None:
        for key, attempt in self.attempts.items():
            if not attempt.unanswered or not (verdict := self.progress.verdict(*key, attempt.unanswered[-1])):
                continue
            attempt.pushed.clear()
            if verdict.stop is not None:
                self.later(0.1, partial(self.end, *key, LEFT))
            elif attempt.waiting is None:
                continue  # it trains on
            elif verdict.budget is not None and verdict.budget > attempt.waiting:
                attempt.budget = verdict.budget
                self.later(self.pace(attempt.trial), partial(self.step, key))
            else:
                continue
            attempt.waiting = None

    def end(self, index: int, number: int, fault: Fault) -> list[Event]:
        attempt = self.attempts.pop((index, number), None)
        if attempt is None:
            return []
        if attempt.running:
            self.pods[attempt.uid] = replace(self.pods[attempt.uid], ended=self.now)
        if fault is not DELETED:
            self.over[index, number] = fault
        self.later(0.05, self.fill)
        return [Ended(index, number, self.now, fault, attempt.node)]

    def ends(self) -> list[Event]:
        """What ended Pods say to an operator that takes over."""
        began = {(pod.trial, pod.attempt): pod for pod in self.pods.values()}
        events: list[Event] = []
        for key, fault in self.over.items():
            pod = began.get(key)
            node, at = self.ran_on.get(key, ""), self.now if pod is None or pod.ended is None else pod.ended
            if pod is not None:
                events.append(Started(*key, pod.began, 1.0, node))
            if pod is not None and key in self.told:
                events.append(Reported(*key, at, self.report(self.stored[key[0]], self.told[key]), pod.uid))
            events.append(Ended(*key, at, fault, node))
        return events

    def fence(self, trial: Trial) -> None:
        """From now on, none of its attempts is believed but the one whose number is stored."""
        for uid, pod in self.pods.items():
            superseded = trial.finished or pod.attempt < trial.attempt
            if pod.trial == trial.index and pod.fenced is None and superseded:
                self.pods[uid] = replace(pod, fenced=self.now)

    def later(self, seconds: float, happen: Callable[[], list[Event]]) -> None:
        heapq.heappush(self.timeline, (self.now + seconds, next(self.order), happen))

    # --- what tests ask ---

    def history(self) -> History:
        """What is left of it, and what an operator writes that is started again now."""
        again = self.fold()
        plan = decide(again, self.ends(), self.now)
        status = study_status(again, self.now)
        return History(
            self.study,
            tuple(self.stored.values()),
            pods=tuple(self.pods.values()),
            accepted=tuple(self.accepted),
            sent=tuple(self.sent),
            versions=tuple(self.versions),
            quiet=(*map(str, plan.actions), *([] if status == self.study.status else [str(status)])),
        )

    def decisions(self) -> list[tuple[int, int]]:
        """(trial, budget) in the order decided."""
        return [(a.trial.index, a.trial.spec.budget) for a in self.actions if isinstance(a, CreateTrial | SaveSpec)]

    def values(self) -> dict[tuple[int, int], float | None]:
        """(trial, budget) to value."""
        return {(t.index, r.budget): r.value for t in self.stored.values() for r in t.status.rungs}


def check_invariants(world: World) -> None:
    """What must hold at the end of every history of ASHA, whatever happened in it."""
    check_lives(world)
    check_promotions(world.actions)


def check_lives(world: World) -> None:
    """What must hold at the end of every history with any scheduler."""
    trials = world.stored.values()
    for trial in trials:
        budgets = [result.budget for result in trial.status.rungs]
        assert budgets == sorted(set(budgets)), "each rung at most once"
        assert trial.status.state != "Running", "nothing runs after the end"
    assert len(set(world.started)) == len(world.started), "no attempt is run twice"
    counts = world.study.status.trials
    assert counts.total == len(world.stored)
    assert counts.running == 0


def check_promotions(actions: list[Action], eta: int = 3, grace: int = 1) -> None:
    """Each promotion was, when decided, among the best floor(n / eta) of the results stored by then, and finite.

    At rungs below `grace` it was only finite.
    """
    rungs: dict[tuple[int, int], dict[int, float | None]] = {}  # by bracket and budget
    for action in actions:
        if isinstance(action, SaveStatus):
            for result in action.trial.status.rungs:
                rung = rungs.setdefault((action.trial.spec.bracket, result.budget), {})
                rung[action.trial.index] = result.value
        if isinstance(action, SaveSpec):
            results = rungs[action.trial.spec.bracket, action.trial.done]
            ranked = sorted((value, index) for index, value in results.items() if value is not None)
            place = [index for _, index in ranked].index(action.trial.index)
            assert place < len(results) // eta or action.trial.done < grace


def check_stops(world: World) -> None:
    """With `median` or `patience`, each report that was stored ended its trial if, and only if, the rule says so."""
    scheduler, budget = world.study.spec.scheduler, world.progress.tuner.max_budget
    known: dict[int, Trial] = {}
    for action in world.actions:
        if not isinstance(action, SaveStatus):
            continue
        before, trial = known.get(action.trial.index), action.trial
        known[trial.index] = trial
        courses = {index: course_of(each, budget) for index, each in known.items()}
        course = courses.pop(trial.index)
        if before is not None and course == course_of(before, budget):
            assert trial.status.state != "Stopped" or before.status.state == "Stopped"
            continue
        if not course:
            continue
        assert before is None or [*course][:-1] == [*course_of(before, budget)], (
            "one report at a time, and none changes"
        )
        if scheduler.median:
            others = [(budget if known[i].status.rungs else max(each, default=0), each) for i, each in courses.items()]
            stops = median_stops(course, others, scheduler.median.trials) and max(course) >= scheduler.median.grace
        else:
            assert scheduler.patience
            stops = patience_stops(course, scheduler.patience.patience, scheduler.patience.min_delta)
            stops = stops and max(course) >= scheduler.patience.grace
        assert stops == (trial.status.state == "Stopped")


def course_of(trial: Trial, budget: int) -> dict[int, float]:
    """The losses that are stored of a trial, by step, but for its result."""
    return {p.step: math.inf if p.value is None else p.value for p in trial.status.curve if p.step < budget}


def chance(seed: int, *key: object) -> random.Random:
    """A generator for one decision of the world, independent of the order in which it is asked."""
    return random.Random(f"{seed}/{key}")

"""A world in virtual time, around the same `decide` as in a cluster: it gives attempts places, trains and breaks them.

Nothing in it depends on anything but the study, the table and the conditions.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from halvard.decide import decide
from halvard.events import Ended, Event, Fault, Placed, Reported, Started
from halvard.faults import EVICTED, METRICS_UNAVAILABLE, NODE_LOST
from halvard.plan import Action, Announce, CreateTrial, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.pods import gpus
from halvard.progress import Progress
from halvard.samplers import MakeSampler
from halvard.simulate.conditions import Conditions
from halvard.simulate.result import Decision, Improvement, Simulated, Simulation, Span
from halvard.simulate.table import Rows, Table
from halvard.status import study_status
from halvard.study import Study
from halvard.study_status import StudyStatus
from halvard.trial import Trial
from halvard_trainer.reports import Report

LEFT = Fault(METRICS_UNAVAILABLE, "it left after its report", counted=True)
DROPPED = Fault(EVICTED, "the job was dropped", counted=False)
LOST = Fault(NODE_LOST, "its worker was lost", counted=False)
MOST_FAULTS = 1000  # of one trial; that is an error, for none is to fail
LONGEST = 1e11  # seconds, three thousand years: not much later dates end
SLOWEST = 700.0  # the logarithm of a factor that is still a number


def simulate(study: Study, table: Table, conditions: Conditions, sampler: MakeSampler | None = None) -> Simulation:
    """Returns what comes of the study, whose parallelism is the number of workers; it begins anew, and not suspended.

    `sampler` makes what takes the place of the study's own. There are no more trials than the table has rows. Raises
    TableError where study and table do not fit, ValueError where the conditions let no leg come to its end.
    """
    limits = study.spec.limits
    trials = min(limits.trials or len(table.u), len(table.u))
    spec = study.spec.model_copy(
        update={
            "parallelism": conditions.workers,
            "suspend": False,
            "limits": limits.model_copy(update={"trials": trials, "retries": MOST_FAULTS + 1}),
        }
    )
    anew = study.model_copy(update={"spec": spec, "status": StudyStatus()})
    return World(anew, table, conditions, sampler).run()


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt: `start` and `began` are the step and the moment at which its span began, `waits` for a verdict."""

    trial: int
    number: int
    row: int
    step: int
    budget: int
    worker: int = -1
    start: int = 0
    began: float = 0.0
    waits: bool = False
    times: Iterator[float] = field(default_factory=lambda: iter(()))  # seconds of the steps to come

    @property
    def key(self) -> tuple[int, int]:
        """What it is known by."""
        return self.trial, self.number


class World:
    """Runs one study to its end."""

    def __init__(self, study: Study, table: Table, conditions: Conditions, sampler: MakeSampler | None = None) -> None:
        """Takes a study that has not begun; `sampler` makes what takes the place of its own."""
        self._study, self._table, self._conditions = study, table, conditions
        self._progress = Progress(study, resumable=conditions.checkpoints, sampler=sampler)
        table.check_fits(study.spec, self._progress.tuner.max_budget)
        self._gpus = gpus(study.spec.template)
        self._now = self._busy = 0.0
        self._order = itertools.count()
        self._timeline: list[tuple[float, int, Callable[[], list[Event]]]] = []
        self._attempts: dict[tuple[int, int], Attempt] = {}  # those that have a worker
        self._queue: deque[Attempt] = deque()
        self._stopped: list[Event] = []  # ends that nobody was told of yet
        self._free = list(range(conditions.workers))  # a heap
        self._away: set[int] = set()  # workers that were lost and are not replaced yet
        self._unused = Rows(table)
        self._rows: dict[int, int] = {}  # by trial
        self._spans: dict[int, list[Span]] = {}
        self._decisions: list[Decision] = []
        self._improvements: list[Improvement] = []

    def run(self) -> Simulation:
        """Turns the crank until the study has ended and nothing runs any more."""
        if math.isfinite(self._conditions.lost_every):
            for worker in self._free:
                self._later(self._lifetime(worker, 0), partial(self._lose, worker, 0))
        wake = self._turn([])
        while self._progress.outcome is None or self._attempts:
            if self._timeline and (wake is None or self._timeline[0][0] <= wake):
                self._now, _, happen = heapq.heappop(self._timeline)
                if self._now > LONGEST:
                    raise ValueError(
                        f"the study lasts longer than {LONGEST:g} s: the table's seconds, full-training, start-up or "
                        "stragglers must be smaller"
                    )
                wake = self._turn(happen())
            elif wake is not None:
                self._now = max(self._now, wake)
                wake = self._turn([])
            else:
                raise RuntimeError("the study stalled: nothing runs, and nothing is to come")
        return self._simulation()

    def _turn(self, events: list[Event]) -> float | None:
        """Lets these be known, and what follows from them at the same moment; returns when to look again."""
        while True:
            plan = decide(self._progress, events, self._now)
            for action in plan.actions:
                self._apply(action)
            events = [*self._stopped, *self._answered(), *self._filled()]
            self._stopped.clear()
            if not events:
                return plan.wake_at

    def _apply(self, action: Action) -> None:
        match action:
            case CreateTrial(trial):
                self._rows[trial.index] = self._unused.take(
                    self._table.point(self._study.spec.parameters, trial.spec.parameters)
                )
                self._spans[trial.index] = []
                self._decided(trial, hot=False)
            case SaveSpec(trial, hot):
                self._decided(trial, hot=hot and self._conditions.hot)
            case StartLeg(trial):
                if trial.status.faults > MOST_FAULTS:
                    raise ValueError(f"{trial.name} was lost {MOST_FAULTS} times: under these conditions it never ends")
                row = self._rows[trial.index]
                self._queue.append(Attempt(trial.index, trial.attempt, row, action.start, trial.spec.budget))
            case StopLeg(trial, number):
                self._stopped += self._stop((trial.index, number))
            case SaveStatus(trial):
                attempt = self._attempts.get((trial.index, trial.attempt))
                if attempt is not None and trial.finished:  # it may be stopped in the middle of its leg
                    attempt.waits = True
                    if (value := self._progress.tuner.converged(trial.index)) is not None:
                        self._finished(trial.index, value)
            case Announce():
                pass

    def _decided(self, trial: Trial, *, hot: bool) -> None:
        spec = trial.spec
        self._decisions.append(Decision(self._now, spec.index, spec.budget, hot, spec.decision))

    # --- workers

    def _filled(self) -> list[Event]:
        """Gives free workers to those that wait for one."""
        events: list[Event] = []
        while self._free and self._queue:
            attempt = self._queue.popleft()
            attempt.worker = heapq.heappop(self._free)
            attempt.start, attempt.began = attempt.step, self._now
            self._attempts[attempt.key] = attempt
            self._begin_leg(attempt, self._conditions.start_up)
            events += [Placed(*attempt.key), Started(*attempt.key, self._now, self._gpus)]
        return events

    def _lose(self, worker: int, times: int) -> list[Event]:
        """The worker does nothing any more, which is noticed only when another is there in its place."""
        self._away.add(worker)
        if worker in self._free:
            self._free.remove(worker)
            heapq.heapify(self._free)
        self._later(self._conditions.away, partial(self._replace, worker, times + 1))
        return []

    def _replace(self, worker: int, times: int) -> list[Event]:
        self._away.remove(worker)
        self._later(self._lifetime(worker, times), partial(self._lose, worker, times))
        attempt = next((attempt for attempt in self._attempts.values() if attempt.worker == worker), None)
        if attempt is not None:
            return self._end(attempt, LOST)
        heapq.heappush(self._free, worker)
        return []

    def _lifetime(self, worker: int, times: int) -> float:
        """How long the worker lasts that is the one of this number after so many were lost."""
        return self._draws(0, worker, times).exponential(self._conditions.lost_every)

    # --- training

    def _begin_leg(self, attempt: Attempt, start_up: float) -> None:
        draws = self._draws(1, *attempt.key, attempt.step)
        slow = math.exp(min(self._conditions.stragglers * draws.standard_normal(), SLOWEST))
        steps = self._table.seconds[attempt.row, attempt.step : attempt.budget]
        if draws.random() < self._conditions.dropped:
            lasts = slow * (start_up + float(steps.sum())) * draws.random()
            self._later(lasts, partial(self._end, attempt, DROPPED))
        attempt.times = iter((steps * slow).tolist())
        self._later(start_up * slow + next(attempt.times), partial(self._step, attempt))

    def _step(self, attempt: Attempt) -> list[Event]:
        if self._attempts.get(attempt.key) is not attempt or attempt.worker in self._away:
            return []
        attempt.step += 1
        value = float(self._table.value[attempt.row, attempt.step - 1])
        checkpoint = f"step-{attempt.step}" if self._conditions.checkpoints else ""
        metrics = {self._study.spec.objective.metric: value}
        reported = Reported(*attempt.key, self._now, Report(attempt.step, metrics, checkpoint))
        if attempt.step < attempt.budget:
            self._later(next(attempt.times), partial(self._step, attempt))
            return [reported]
        self._close(attempt, attempt.budget)
        if attempt.budget == self._progress.tuner.max_budget:
            self._finished(attempt.trial, value)
        attempt.waits = self._conditions.hot
        return [reported] if self._conditions.hot else [reported, *self._end(attempt, LEFT)]

    def _answered(self) -> list[Event]:
        """Tells the attempts that wait what is to become of them."""
        events: list[Event] = []
        for attempt in [attempt for attempt in self._attempts.values() if attempt.waits]:
            verdict = self._progress.verdict(*attempt.key, attempt.step)
            if verdict is None:
                continue
            attempt.waits = False
            if verdict.budget is None:
                events += self._end(attempt, LEFT)
            else:
                attempt.budget = verdict.budget
                self._begin_leg(attempt, start_up=0.0)
        return events

    def _stop(self, key: tuple[int, int]) -> list[Event]:
        """Ends the attempt of this key, whether it has a worker or waits for one."""
        if key in self._attempts:
            return self._end(self._attempts[key], LEFT)
        waiting, self._queue = self._queue, deque(attempt for attempt in self._queue if attempt.key != key)
        return [Ended(*attempt.key, self._now, LEFT) for attempt in waiting if attempt.key == key]

    def _end(self, attempt: Attempt, fault: Fault) -> list[Event]:
        """Takes its worker from an attempt, which does nothing where it has none any more."""
        if self._attempts.get(attempt.key) is not attempt or (attempt.worker in self._away and fault is DROPPED):
            return []
        del self._attempts[attempt.key]
        self._close(attempt, None)
        if attempt.worker not in self._away:
            heapq.heappush(self._free, attempt.worker)
        return [Ended(*attempt.key, self._now, fault)]

    # --- what is remembered

    def _close(self, attempt: Attempt, budget: int | None) -> None:
        """Ends the attempt's span and begins its next one; one without time is none."""
        span = Span(
            attempt.trial, attempt.number, attempt.worker, attempt.began, self._now, attempt.start, attempt.step, budget
        )
        if budget is not None or span.seconds > 0:
            self._spans[attempt.trial].append(span)
        self._busy += span.seconds
        attempt.start, attempt.began = attempt.step, self._now

    def _finished(self, trial: int, value: float) -> None:
        goal, sign = self._study.spec.objective.goal, self._study.spec.objective.sign
        best = self._improvements[-1].value if self._improvements else sign * math.inf
        if math.isfinite(value) and sign * value < sign * best:
            running = sum(self._now - attempt.began for attempt in self._attempts.values())
            regret = sign * (value - self._table.best(goal, self._progress.tuner.max_budget))
            self._improvements.append(Improvement(self._now, trial, value, self._busy + running, regret))

    def _simulation(self) -> Simulation:
        trials = self._progress.trials
        return Simulation(
            study=self._study.model_copy(update={"status": study_status(self._progress, self._now)}),
            budgets=self._progress.tuner.budgets,
            seconds=self._now,
            gpus=self._gpus,
            trials=tuple(
                Simulated(trials[index], self._rows[index], tuple(self._spans[index])) for index in sorted(trials)
            ),
            decisions=tuple(self._decisions),
            improvements=tuple(self._improvements),
        )

    # --- small things

    def _later(self, seconds: float, happen: Callable[[], list[Event]]) -> None:
        heapq.heappush(self._timeline, (self._now + seconds, next(self._order), happen))

    def _draws(self, *key: int) -> np.random.Generator:
        """Returns the generator of one decision of the world, which depends on no other."""
        return np.random.default_rng(np.random.SeedSequence(self._conditions.seed, spawn_key=key))

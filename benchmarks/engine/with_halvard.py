"""Halvard: the whole tuner, as operator, `halvard run` and simulator use it; and its scheduler alone."""

import random
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from typing_extensions import override

from benchmarks.engine.engine import Engine
from benchmarks.engine.problem import NAMES, WORKERS, loss, seconds
from halvard import lifecycle
from halvard.schedulers import make_scheduler
from halvard.study import StudySpec
from halvard.trial import Trial
from halvard.tuner import Leg, Tuner
from halvard_trainer.reports import Report

ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
METRIC = "loss"


def study_spec(
    scheduler: str, options: Mapping[str, int], sampler: str, seed: int, step: float | None = None
) -> StudySpec:
    """Returns a study without end; with a `step`, its parameters have so coarse a grid."""
    axis = {"min": 0.0, "max": 1.0} | ({"step": step} if step else {})
    return StudySpec.model_validate(
        {
            "objective": {"metric": METRIC, "goal": "minimize"},
            "parameters": [{"name": name, "float": axis} for name in NAMES],
            "scheduler": {scheduler: dict(options)},
            "sampler": {sampler: {}},
            "limits": {"duration": "1h"},
            "seed": seed,
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


def next_report(leg: Leg, step: int, every: int | None) -> int:
    """Returns at which step a trial that has come to `step` reports next."""
    return min(leg.budget, step + every) if every else leg.budget


def history(spec: StudySpec, count: int) -> list[Trial]:
    """Returns so many trials as they are stored once all that can be decided on them is decided and has a result.

    One worker alone; deterministic by the study's seed.
    """
    tuner, draw, every = Tuner(spec), random.Random(spec.seed), spec.scheduler.interval
    trials: dict[int, Trial] = {}
    while (leg := tuner.ask()) and (leg.index < count):
        known = trials.get(leg.index)
        trial = lifecycle.promoted(known, leg.trial_spec()) if known else lifecycle.new_trial("study", leg.trial_spec())
        trials[leg.index] = _trained(tuner, leg, trial, draw, every)
    return list(trials.values())


def _trained(tuner: Tuner, leg: Leg, trial: Trial, draw: random.Random, every: int | None) -> Trial:
    """The trial after its leg, of which every report was told."""
    step, took = leg.start, seconds(leg.parameters, leg.budget - leg.start)
    while True:
        step = next_report(leg, step, every)
        value = loss(leg.parameters, step, draw.random())
        answer = tuner.tell(leg.index, step, value, took)
        if every:
            trial = lifecycle.reported(trial, Report(step, {METRIC: value}), METRIC, every)
        if answer.leg_over:
            return lifecycle.completed_rung(trial, value, took, took, at=ANY_TIME, order=answer.order)
        if answer.stop:
            return lifecycle.ended(trial, "Stopped", answer.why, order=tuner.withdraw(leg.index))


class WholeTuner(Engine):
    """`Tuner.tell`, and `Tuner.ask` where that ended the leg."""

    def __init__(self, spec: StudySpec, trials: Iterable[Trial]) -> None:
        """Folds the stored trials, as after a restart."""
        self._tuner, self._every = Tuner(spec, trials), spec.scheduler.interval
        self._training: deque[tuple[Leg, int]] = deque()
        self.begun = 0
        for _ in range(WORKERS):
            self._ask()

    @property
    @override
    def due(self) -> int:
        return self._training[0][1]

    @override
    def decide(self, value: float) -> None:
        leg, step = self._training.popleft()
        answer = self._tuner.tell(leg.index, step, value, seconds(leg.parameters, leg.budget - leg.start))
        if answer.leg_over:
            self._ask()
        elif answer.stop:
            self._tuner.withdraw(leg.index)
            self._ask()
        else:
            self._training.append((leg, next_report(leg, step, self._every)))

    def _ask(self) -> None:
        leg = self._tuner.ask()
        if leg is None:
            raise RuntimeError("a study without end had no next leg")
        self.begun += leg.new
        self._training.append((leg, next_report(leg, leg.start, self._every)))


class SchedulerAlone(Engine):
    """`record`, `promote`, and `start` where nothing was due: no parameters, no texts, nothing about trials is kept."""

    def __init__(self, spec: StudySpec, trials: Iterable[Trial]) -> None:
        """Folds the stored trials."""
        self._scheduler = make_scheduler(spec, lambda: True)
        self._next = self.begun = 0
        for trial in trials:
            self._scheduler.fold(trial)
            self._next = max(self._next, trial.index + 1)
        self._training: deque[tuple[int, int]] = deque()
        for _ in range(WORKERS):
            self._ask()

    @property
    @override
    def due(self) -> int:
        return self._training[0][1]

    @override
    def decide(self, value: float) -> None:
        self._scheduler.record(*self._training.popleft(), value)
        self._ask()

    def _ask(self) -> None:
        promotion = self._scheduler.promote()
        if promotion:
            self._training.append((promotion.index, promotion.budget))
            return
        _, budget = self._scheduler.start(self._next)
        self._training.append((self._next, budget))
        self._next += 1
        self.begun += 1

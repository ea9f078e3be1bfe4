"""Reports that Pods pushed, on their way to the next turn of their study, and the pushes that wait for its verdict."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from halvard import clock
from halvard.cache import BrokenStudy, Cache
from halvard.endpoint import Answer, UnknownPod
from halvard.events import Reported, Started
from halvard.identity import PodIdentity, Unavailable
from halvard.observe import PodView
from halvard.plan import Verdict
from halvard.queue import Key
from halvard.study import Study
from halvard.trial import Trial
from halvard_trainer.reports import Report

PATIENCE = 10.0  # seconds a push is held open
MOST_WAITING = 10_000  # events of one study; while the API server is away they are not taken out
SUPERSEDED = "another attempt took over"


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A push that a decision follows from, and that waits to hear how far its attempt may go."""

    trial: int
    attempt: int
    step: int
    verdict: asyncio.Future[Verdict]


@dataclass(slots=True)
class Box:
    """What has arrived for one study."""

    events: list[Started | Reported] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


class Inbox:
    """Takes reports (`halvard.endpoint.Reports`); whose they are is what the cache says about the Pod's uid."""

    def __init__(self, cache: Cache, wake: Callable[[Key], None]) -> None:
        """`wake` asks for a turn of a study."""
        self._cache = cache
        self._wake = wake
        self._boxes: dict[Key, Box] = {}

    async def push(self, pod: PodIdentity, reports: Sequence[Report], elapsed: float) -> Answer:
        """Puts the reports before the study's next turn, as they arrive, and waits for its verdict where one is due.

        Raises UnknownPod, or Unavailable while the study is broken or more reports wait than memory is meant for.
        """
        study, view, trial = self._whose(pod)
        key, attempt = (study.namespace, study.name), view.attempt
        if trial.finished or attempt != trial.attempt:
            return Answer(stop=trial.status.message or SUPERSEDED, superseded=True)
        now = clock.now()
        box = self._boxes.setdefault(key, Box())
        if len(box.events) + len(reports) >= MOST_WAITING:
            raise Unavailable(f"{len(box.events)} reports of {'/'.join(key)} wait to be stored")
        # The kubelet may tell of the start only after a short leg is over. No attempt is older than its Pod.
        box.events.append(Started(trial.index, attempt, max(now - elapsed, view.created_at), view.gpus))
        box.events.extend(Reported(trial.index, attempt, now, report, view.uid) for report in reports)
        self._wake(key)
        last = max((report.step for report in reports), default=0)
        if last < trial.spec.budget and not any(decides_on(study, report) for report in reports):
            return Answer(budget=trial.spec.budget)
        waiting = Waiting(trial.index, attempt, last, asyncio.get_running_loop().create_future())
        box.waiting.append(waiting)
        try:
            async with asyncio.timeout(PATIENCE):
                verdict = await waiting.verdict
        except TimeoutError:
            return Answer()
        finally:
            box.waiting.remove(waiting)
        return Answer(budget=verdict.budget, stop=verdict.stop)

    def take(self, study: Key) -> list[Started | Reported]:
        """Returns what the pushes since the last call say, in order."""
        box = self._boxes.get(study)
        if box is None:
            return []
        events, box.events = box.events, []
        return events

    def settle(self, study: Key, verdict: Callable[[int, int, int], Verdict | None]) -> None:
        """Answers the pushes that have a verdict by now (of trial, attempt, step); it has to be stored already."""
        box = self._boxes.get(study)
        for waiting in box.waiting if box else ():
            decided = verdict(waiting.trial, waiting.attempt, waiting.step)
            if decided is not None and not waiting.verdict.done():
                waiting.verdict.set_result(decided)

    def drop(self, study: Key, reason: str) -> None:
        """Forgets a study that is gone; who still waits is told to stop."""
        self.settle(study, lambda _trial, _attempt, step: Verdict(step, stop=reason))
        self._boxes.pop(study, None)

    def _whose(self, pod: PodIdentity) -> tuple[Study, PodView, Trial]:
        """Returns a Pod's study, itself, and its trial; raises UnknownPod, or Unavailable while the study is broken."""
        item = self._cache.pods.by_uid(pod.uid)
        trial = self._cache.trials.get((pod.namespace, item.value.trial)) if item else None
        study = self._cache.studies.get(trial.study_key) if trial else None
        if item is None or trial is None or study is None or item.owner != trial.uid or trial.owner != study.uid:
            raise UnknownPod(f"Pod {pod.namespace}/{pod.name} runs no trial that is known here")
        if isinstance(study.value, BrokenStudy):
            raise Unavailable(f"Study {study.name} is not valid: {study.value.message}")
        return study.value, item.value, trial.value


def decides_on(study: Study, report: Report) -> bool:
    """Returns whether a report from before the budget may be its trial's last."""
    interval = study.spec.scheduler.interval
    return interval is not None and report.step % interval == 0

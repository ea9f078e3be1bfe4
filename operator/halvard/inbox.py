"""Reports that Pods pushed, on their way to the next turn of their study, and the pushes that wait for its verdict."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from halvard import clock
from halvard.cache import BrokenStudy, Cache, Cached
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
MOST_WAITING = 10_000  # events of one study; while the API server is away they are given back by every turn
SUPERSEDED = "another attempt took over"

Told = dict[tuple[str, int], Started | Reported]
"""What Pods say, in the order of its arrival: by the Pod's uid and the report's step (0: its start).

Each once, however often a sidecar asks what became of it: of a step only the first report counts.
"""


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

    told: Told = field(default_factory=dict)
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
        # The kubelet may tell of the start only after a short leg is over. No attempt is older than its Pod.
        told: Told = {(view.uid, 0): Started(trial.index, attempt, max(now - elapsed, view.created_at), view.gpus)}
        for report in reports:
            told.setdefault((view.uid, report.step), Reported(trial.index, attempt, now, report, view.uid))
        box = self._boxes.setdefault(key, Box())
        if len(box.told) + len(told.keys() - box.told.keys()) > MOST_WAITING:
            raise Unavailable(f"{len(box.told)} reports of {'/'.join(key)} wait to be stored")
        add(box.told, told)
        self._wake(key)
        last = max((report.step for report in reports), default=0)
        if last < trial.spec.budget and not any(decides_on(study, report) for report in reports):
            return Answer(budget=trial.spec.budget, stored=self._stored(view))
        waiting = Waiting(trial.index, attempt, last, asyncio.get_running_loop().create_future())
        box.waiting.append(waiting)
        try:
            async with asyncio.timeout(PATIENCE):
                verdict = await waiting.verdict
        except TimeoutError:
            return Answer()
        finally:
            box.waiting.remove(waiting)
        return Answer(budget=verdict.budget, stop=verdict.stop, stored=self._stored(view))

    def take(self, study: Key) -> Told:
        """Returns what the pushes since the last call say."""
        box = self._boxes.get(study)
        if box is None:
            return {}
        told, box.told = box.told, {}
        return told

    def give_back(self, study: Key, told: Told) -> None:
        """Keeps what was taken and could not be stored for the next turn, before all that has arrived since."""
        box = self._boxes.setdefault(study, Box())
        add(told, box.told)
        box.told = told

    def sift(self, study: Study) -> None:
        """Drops what Pods have said that are not there any more, or are another study's.

        Their numbers may be given to Pods that are yet to be made.
        """
        box = self._boxes.get((study.namespace, study.name))
        if box is not None:
            box.told = {mark: event for mark, event in box.told.items() if self._is_of(mark[0], study)}

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

    def _is_of(self, uid: str, study: Study) -> bool:
        _, trial = self._known(uid)
        return trial is not None and trial.owner == study.uid

    def _known(self, uid: str) -> tuple[PodView | None, Cached[Trial] | None]:
        """A Pod, and the trial that it belongs to; neither where that is not known."""
        item = self._cache.pods.by_uid(uid)
        trial = self._cache.trials.get((item.namespace, item.value.trial)) if item else None
        return (item.value, trial) if item and trial and item.owner == trial.uid else (None, None)

    def _stored(self, view: PodView) -> int:
        """The step of the checkpoint that a Pod's trial is stored to go on from; 0 where the Pod has not written it."""
        trial = self._cache.trials.get((view.namespace, view.trial))
        checkpoint = trial.value.status.checkpoint if trial else None
        return checkpoint.step if checkpoint and checkpoint.pod == view.uid else 0

    def _whose(self, pod: PodIdentity) -> tuple[Study, PodView, Trial]:
        """Returns a Pod's study, itself, and its trial; raises UnknownPod, or Unavailable while the study is broken."""
        view, trial = self._known(pod.uid)
        study = self._cache.studies.get(trial.study_key) if trial else None
        if view is None or trial is None or study is None or trial.owner != study.uid:
            raise UnknownPod(f"Pod {pod.namespace}/{pod.name} runs no trial that is known here")
        if isinstance(study.value, BrokenStudy):
            raise Unavailable(f"Study {study.name} is not valid: {study.value.message}")
        return study.value, view, trial.value


def add(told: Told, later: Told) -> None:
    """Adds what was not told before."""
    for mark, event in later.items():
        told.setdefault(mark, event)


def decides_on(study: Study, report: Report) -> bool:
    """Returns whether a report from before the budget may be its trial's last."""
    interval = study.spec.scheduler.interval
    return interval is not None and report.step % interval == 0

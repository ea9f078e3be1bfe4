"""One study in memory between two turns: `Progress` folded from the cache, and what the cache's changes mean to it."""

from collections.abc import Iterator

from halvard.cache import Cache, Cached, Change
from halvard.events import Avoids, Ended, Event, LeftBehind, Outdated, Placed, Reported, Started, Stuck
from halvard.faults import DISOWNED
from halvard.observe import PodView
from halvard.pods import pod_name, template_hash
from halvard.progress import Progress
from halvard.study import Study
from halvard.trial import Trial


class Session:
    """A study being worked on.

    `sound` is False from the moment a turn decides until all of it is stored.
    `status_at` and `urgent` say when the Study's status was last computed, and what would not have waited.
    """

    def __init__(self, cache: Cache, study: Study, version: int) -> None:
        """Folds what the cache knows; raises ValueError where the trials do not fit the study."""
        self._key = (study.namespace, study.name)
        cache.forget_changes(self._key)
        self._cache = cache
        self._study = study
        self._version = version
        self._template = template_hash(study.spec.template)
        self._first_look = [Change(item, gone=False) for item in cache.pods.of(self._key)]
        trials = [item.value for item in cache.trials.of(self._key) if item.owner == study.uid]
        running = {(i, item.value.attempt): bool(item.value.node) for item, i in self._ours(self._first_look)}
        self.progress = Progress(study, trials, running)
        self.sound = True
        self.status_at = 0.0
        self.urgent: object = None

    def follow(self, study: Study, version: int) -> bool:
        """Takes over what others changed; returns False where everything has to be folded anew."""
        if study.uid != self._study.uid or (study.spec != self._study.spec and not self.progress.trials):
            return False
        if version != self._version:
            self._study, self._version, self._template = study, version, template_hash(study.spec.template)
            self.progress.update_study(study)
        return all(self._follow_trial(change) for change in self._cache.trials.changes(self._key))

    def gather(self, now: float) -> list[Event]:
        """Returns what Pods have to say since the last call. `now`: seconds since the epoch."""
        changes = [*self._first_look, *self._cache.pods.changes(self._key)]
        self._first_look = []
        gone = {change.item.uid for change in changes if change.gone}
        told = [
            event
            for item, index in self._ours(changes)
            for event in events_of(item.value, index, now, self._template, gone=item.uid in gone)
        ]
        return [*told, *(Ended(*leg, now, DISOWNED) for leg in self._disowned(changes))]

    def _follow_trial(self, change: Change[Trial]) -> bool:
        item = change.item
        known = self.progress.trials.get(item.value.index)
        if item.owner != self._study.uid:
            return known is None or known.uid != item.uid  # or its owner reference was taken away
        if change.gone:
            return known is None or known.uid != item.uid
        if known is None:
            return False  # it has got back what made it one of the study's
        if known.version == item.value.version:
            return True  # our own write
        if (known.spec, known.status) != (item.value.spec, item.value.status):
            return False
        self.progress.stored(item.value)
        return True

    def _disowned(self, changes: list[Change[PodView]]) -> Iterator[tuple[int, int]]:
        """The attempts whose Pod's name another Pod has, or theirs without its owner: no such Pod is looked at."""
        for change in changes:
            pod = change.item.value
            trial = self._cache.trials.get((pod.namespace, pod.trial))
            if not change.gone and trial and trial.owner == self._study.uid and trial.uid != change.item.owner:
                yield trial.value.index, pod.attempt

    def _ours(self, changes: list[Change[PodView]]) -> Iterator[tuple[Cached[PodView], int]]:
        """The Pods that belong to a trial of this study, each with the trial's index."""
        for change in changes:
            trial = self._cache.trials.get((change.item.namespace, change.item.value.trial))
            if trial and trial.uid == change.item.owner and trial.owner == self._study.uid:
                yield change.item, trial.value.index


def unlisted(cache: Cache, study: Study) -> list[str]:
    """Returns the names of Pods that should be there and that no list has shown.

    They are gone; or the label is that lists ask for, and a Pod that runs on is to have no other beside it.
    """
    trials = (item.value for item in cache.trials.of((study.namespace, study.name)) if item.owner == study.uid)
    names = (pod_name(trial.name, trial.attempt) for trial in trials if trial.status.state == "Running")
    return [name for name in names if cache.pods.get((study.namespace, name)) is None]


def events_of(pod: PodView, trial: int, now: float, template: str, *, gone: bool) -> Iterator[Event]:
    """Returns all that a Pod says, in the order in which it happened; saying it again changes nothing.

    `template`: the hash of the one that the study has now.
    """
    if pod.started_at is not None:
        yield Started(trial, pod.attempt, pod.started_at, pod.gpus, pod.node)
    elif pod.node:
        yield Placed(trial, pod.attempt, pod.node)
    elif pod.avoids:
        yield Avoids(trial, pod.attempt, pod.avoids)
    if pod.report is not None:
        yield Reported(trial, pod.attempt, pod.ended_at or now, pod.report, pod.uid)
    if pod.stuck is not None:
        yield Stuck(trial, pod.attempt, pod.stuck)
    if pod.template != template and (pod.stuck or not pod.node):
        yield Outdated(trial, pod.attempt)
    if pod.left_behind and not pod.deleting:
        yield LeftBehind(trial, pod.attempt)
    if gone or pod.drained or pod.lost:
        yield Ended(trial, pod.attempt, pod.ended_at or now, pod.fault, pod.node, pod.own_fault)

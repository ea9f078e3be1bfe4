"""Plans become calls: decisions are stored one after the other, and what rests on them is done as soon as they are.

Whatever the server answers goes into the cache at once, so the next turn reads its own writes.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from halvard import clock
from halvard.allowed import refusal
from halvard.cache import Cache, Cached
from halvard.kube import (
    EVENTS,
    PODS,
    STUDIES,
    TRIALS,
    Conflict,
    Kube,
    KubeError,
    Manifest,
    NotFound,
    Refused,
    Unavailable,
)
from halvard.metrics import Metrics
from halvard.plan import Action, Announce, CreateTrial, Plan, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.pods import LABEL_STUDY, PodSettings, build, pod_name
from halvard.progress import Progress
from halvard.queue import Key
from halvard.study import Study
from halvard.trial import Trial

T = TypeVar("T")

AT_ONCE = 16
QUOTA_EXHAUSTED = "QuotaExhausted"
POD_REFUSED = "PodRefused"
TEMPLATE_NOT_ALLOWED = "TemplateNotAllowed"
POD_NOT_CREATED = "PodNotCreated"
POD_NOT_DELETED = "PodNotDeleted"
NOTE_LENGTH = 1024  # bytes
PATIENCE = 3.0  # seconds for which the server is asked again at once to create or to delete a Pod
FIRST_PAUSE = 0.1
DELETE_AGAIN = 10.0

log = logging.getLogger(__name__)


class Applier:
    """Carries out the plans of any study."""

    def __init__(self, kube: Kube, cache: Cache, metrics: Metrics, pods: PodSettings, identity: str) -> None:
        """`pods` is what every Pod of this operator shares, `identity` what Events name as their source."""
        self._kube = kube
        self._cache = cache
        self._metrics = metrics
        self._pods = pods
        self._identity = identity
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._doubtful = defaultdict[Key, set[str]](set)  # names of Trials, by study
        self._kept: WeakKeyDictionary[Progress, dict[tuple[int, int], str]] = WeakKeyDictionary()

    def not_deleted(self, progress: Progress) -> str:
        """Returns the words with which the deletion of a Pod was refused; empty where none waits to be tried again."""
        kept = self._kept.get(progress, {})
        return next((words for leg, words in kept.items() if leg in progress.leaving), "")

    async def read_doubtful(self, study: Key) -> None:
        """Reads the Trials of which nobody knows whether the last write was carried out."""
        for name in sorted(self._doubtful.get(study, ())):
            with suppress(NotFound):
                self._cache.trials.seen(await self._kube.get(TRIALS, study[0], name))
            self._doubtful[study].discard(name)

    async def apply(self, progress: Progress, plan: Plan) -> bool:
        """Stores the plan's decisions strictly in order; Pods come and go beside them, each after all that precedes it.

        So a crash leaves a prefix of the decisions, and Pods that are still missing are started by the next fold.
        Returns whether all legs were taken; one that was not is told to `progress`. Raises KubeError, once all that was
        begun is done: `progress` is no longer true then.
        """
        try:
            # In a task of its own: one that waits for a TaskGroup counts as cancelled once a part failed (Python 3.11).
            return await asyncio.create_task(self._carry_out(progress, plan))
        except ExceptionGroup as group:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from group  # a TaskGroup keeps quiet about it where there are errors too
            raise group.exceptions[0] from group

    async def _carry_out(self, progress: Progress, plan: Plan) -> bool:
        errors: list[KubeError] = []
        effects: list[asyncio.Task[bool]] = []
        starts: dict[tuple[int, int], asyncio.Task[bool]] = {}
        async with asyncio.TaskGroup() as beside:
            with noted(errors):
                for action in in_order_of_need(plan.actions):
                    if isinstance(action, CreateTrial | SaveSpec | SaveStatus):
                        await self._store(progress, action)
                        continue
                    effect = beside.create_task(self._effect(progress, action, starts, errors))
                    effects.append(effect)
                    if isinstance(action, StartLeg):
                        starts[action.trial.index, action.trial.attempt] = effect
        if errors:
            raise errors[0]
        return all(effect.result() for effect in effects)

    async def _effect(
        self,
        progress: Progress,
        action: StartLeg | StopLeg | Announce,
        starts: Mapping[tuple[int, int], asyncio.Task[bool]],
        errors: list[KubeError],
    ) -> bool:
        """Returns False for a leg that was not taken. `starts`: of this plan's legs."""
        with noted(errors):
            match action:
                case StartLeg():
                    return await self._start(progress, action)
                case StopLeg():
                    if start := starts.get((action.trial.index, action.attempt)):
                        await start  # else its Pod would be looked for in vain, and come to be afterwards
                    await self._stop(progress, action)
                case Announce():
                    await self._announce(progress.study, action)
        return True

    async def _store(self, progress: Progress, action: CreateTrial | SaveSpec | SaveStatus) -> None:
        try:
            match action:
                case CreateTrial():
                    await self._create_trial(progress, action.trial)
                case SaveSpec():
                    await self._save(progress, action.trial, "spec", action.trial.spec)
                    self._metrics.promotions.labels("hot" if action.hot else "cold").inc()
                case SaveStatus():
                    await self._save(progress, action.trial, "status", action.trial.status)
        except Unavailable:
            self._doubtful[progress.study.namespace, progress.study.name].add(action.trial.name)
            raise

    # --- trials ---------------------------------------------------------------------------------------------------

    async def _create_trial(self, progress: Progress, trial: Trial) -> None:
        study = progress.study
        try:
            stored = await self._kube.create(TRIALS, study.namespace, trial_manifest(study, trial))
        except Conflict:
            found = await self._kube.get(TRIALS, study.namespace, trial.name)
            if owner_of(found) != study.uid:
                raise Refused(f"a Trial {trial.name} is there that does not belong to this Study") from None
            if (found["metadata"].get("labels") or {}).get(LABEL_STUDY) != study.name:
                raise Refused(f"Trial {trial.name} has lost its label {LABEL_STUDY}={study.name}") from None
            raise  # ours, and not known: everything is to be read again
        self._remember(progress, trial, stored)

    async def _save(self, progress: Progress, trial: Trial, part: str, value: BaseModel) -> None:
        study = progress.study
        version = progress.trials[trial.index].version  # an earlier action of this plan may have raised it
        known = self._cache.trials.get((study.namespace, trial.name))
        if known and known.value.version == version and getattr(known.value, part) == value:
            return  # whoever died before the next step of this plan had stored it already
        stored = await self._kube.patch(
            TRIALS, study.namespace, trial.name, version=version, part=part, value=as_json(value)
        )
        known = self._cache.trials.get((study.namespace, trial.name))
        before = known.value if known else trial
        self._remember(progress, before.model_copy(update={part: value}), stored)

    def _remember(self, progress: Progress, trial: Trial, stored: Manifest) -> None:
        """What we wrote is what is stored now; parsing the answer would only make a second copy of it."""
        metadata = stored["metadata"]
        trial = trial.model_copy(update={"uid": metadata["uid"], "version": metadata["resourceVersion"]})
        progress.stored(trial)
        study = progress.study
        self._cache.trials.put(
            Cached(
                namespace=study.namespace,
                name=trial.name,
                uid=trial.uid,
                version=int(trial.version),
                study=study.name,
                owner=study.uid,
                value=trial,
            )
        )

    # --- Pods -----------------------------------------------------------------------------------------------------

    async def _start(self, progress: Progress, leg: StartLeg) -> bool:
        study = progress.study
        trial = leg.trial.model_copy(update={"uid": progress.trials[leg.trial.index].uid})
        if message := refusal(study.spec.template, self._pods.allow):
            return self._refused(progress, trial, TEMPLATE_NOT_ALLOWED, message)
        manifest = build(study, trial, leg, self._pods, self._previous_node(study, trial))
        name = manifest["metadata"]["name"]

        async def create() -> Manifest:
            async with self._slots:
                return await self._kube.create(PODS, study.namespace, manifest)

        try:
            created = await patiently(create, 0.0 if in_vain(progress) else PATIENCE)
        except Conflict:
            return self._found(progress, trial, await self._kube.get(PODS, study.namespace, name))
        except Refused as error:
            return self._refused(progress, trial, QUOTA_EXHAUSTED if error.quota else POD_REFUSED, str(error))
        except Unavailable as error:
            try:
                return self._found(progress, trial, await self._kube.get(PODS, study.namespace, name))
            except NotFound:
                return self._refused(progress, trial, POD_NOT_CREATED, str(error), error.retry_after)
        self._metrics.legs.labels("resumed" if leg.resume else "fresh").inc()
        self._cache.pods.seen(created)
        return True

    def _found(self, progress: Progress, trial: Trial, pod: Manifest) -> bool:
        """A Pod of that name is there: what it has said so far was not heard, so the next turn comes at once."""
        name = pod["metadata"]["name"]
        if owner_of(pod) != trial.uid:
            message = f"a Pod {name} is there that does not belong to Trial {trial.name}"
            return self._refused(progress, trial, POD_REFUSED, message)
        self._cache.pods.seen(pod)
        self._cache.pods.again((progress.study.namespace, name))
        return False

    def _refused(self, progress: Progress, trial: Trial, reason: str, message: str, wait: float = 0.0) -> bool:
        self._metrics.pod_create_errors.labels(reason).inc()
        progress.refused(trial.index, reason, message, clock.now() + wait)
        return False

    def _previous_node(self, study: Study, trial: Trial) -> str:
        """Where the attempt before ran, as long as its Pod is there."""
        pod = self._cache.pods.get((study.namespace, pod_name(trial.name, trial.attempt - 1)))
        return pod.value.node if pod else ""

    async def _stop(self, progress: Progress, action: StopLeg) -> None:
        study, leg = progress.study, (action.trial.index, action.attempt)
        name = pod_name(action.trial.name, action.attempt)
        kept = self._kept.setdefault(progress, {})
        try:
            if pod := self._cache.pods.get((study.namespace, name)):
                uid, going = pod.uid, pod.value.deleting
            else:
                metadata = (await self._kube.get(PODS, study.namespace, name))["metadata"]
                uid, going = metadata["uid"], "deletionTimestamp" in metadata
            if not going:  # else somebody has asked for it, perhaps whoever led before, and its kubelet knows
                await self._delete(study.namespace, name, uid)
        except NotFound:  # it is gone already
            if action.trial.index not in progress.live:
                progress.leaving.pop(leg, None)  # should a former leader have asked for it, it leaves anew
        except Refused as error:  # everything else goes on; it is tried again as long as the Pod is there
            kept[leg] = str(error)
            if leg in progress.leaving:
                progress.leaving[leg] = clock.now() + DELETE_AGAIN
            return
        kept.pop(leg, None)

    async def _delete(self, namespace: str, name: str, uid: str) -> None:
        """Raises NotFound where it is gone, Conflict where it is not, but was written at the same moment.

        Raises Refused also where nothing but this one request finds no answer.
        """
        asked = False

        async def delete() -> None:
            """Asks for it; before it does so again, it looks whether only the answer was lost."""
            nonlocal asked
            if asked and await self._is_going(namespace, name, uid):
                return
            asked = True
            await self._kube.delete(PODS, namespace, name, uid)

        try:
            await patiently(delete, PATIENCE)
        except (Conflict, Unavailable) as error:
            if await self._is_going(namespace, name, uid):
                return
            if isinstance(error, Unavailable):
                raise Refused(str(error), error.code) from error
            raise

    async def _is_going(self, namespace: str, name: str, uid: str) -> bool:
        """Whether the Pod with the uid is being deleted, or has made room for another; raises NotFound if gone."""
        found = (await self._kube.get(PODS, namespace, name))["metadata"]
        return bool(found["uid"] != uid or "deletionTimestamp" in found)

    # --- words ----------------------------------------------------------------------------------------------------

    async def _announce(self, study: Study, action: Announce) -> None:
        event = event_manifest(study, action, self._identity)
        try:
            await self._kube.create(EVENTS, study.namespace, event)
        except KubeError as error:  # an Event is a courtesy: nothing waits for it
            log.warning("%s/%s: no Event was made of %r: %s", study.namespace, study.name, action.message, error)


@contextmanager
def noted(errors: list[KubeError]) -> Iterator[None]:
    """What fails keeps nothing of the plan from being done that was begun beside it."""
    try:
        yield
    except KubeError as error:
        errors.append(error)


def in_vain(progress: Progress) -> bool:
    """Whether the server could not answer the last time when a Pod was to be created, however often it was asked."""
    return progress.block is not None and progress.block.reason == POD_NOT_CREATED


async def patiently(request: Callable[[], Awaitable[T]], patience: float) -> T:
    """Returns the answer to a request, made again for so many seconds where the server cannot answer now."""
    pause, until = FIRST_PAUSE, clock.now() + patience
    while True:
        try:
            return await request()
        except Unavailable as error:
            pause = max(pause, error.retry_after)
            if clock.now() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause *= 2


def in_order_of_need(actions: Iterable[Action]) -> list[Action]:
    """Returns the plan with each leg right after the last decision about its own trial: it waits for no other."""
    groups: list[list[Action]] = [[]]
    latest: dict[int, list[Action]] = {}
    for action in actions:
        if isinstance(action, StartLeg):
            latest.get(action.trial.index, groups[0]).append(action)
            continue
        groups.append([action])
        if not isinstance(action, Announce):
            latest[action.trial.index] = groups[-1]
    return [action for group in groups for action in group]


def trial_manifest(study: Study, trial: Trial) -> Manifest:
    """Returns the object of a new trial, owned by its study."""
    owner = {"apiVersion": STUDIES.api_version, "kind": "Study", "name": study.name, "uid": study.uid}
    return {
        "apiVersion": TRIALS.api_version,
        "kind": "Trial",
        "metadata": {
            "name": trial.name,
            "namespace": study.namespace,
            "labels": {LABEL_STUDY: study.name},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": False}],
        },
        "spec": as_json(trial.spec),
    }


def event_manifest(study: Study, action: Announce, identity: str) -> Manifest:
    """Returns the Kubernetes Event that tells people about a study."""
    regarding = {"apiVersion": STUDIES.api_version, "kind": "Study", "namespace": study.namespace, "name": study.name}
    return {
        "apiVersion": EVENTS.api_version,
        "kind": "Event",
        "metadata": {"name": f"{study.name}.{uuid4().hex[:16]}", "namespace": study.namespace},
        "regarding": {**regarding, "uid": study.uid},
        "type": action.kind,
        "reason": action.reason,
        "note": action.message.encode()[:NOTE_LENGTH].decode(errors="ignore"),
        "action": action.reason,
        "eventTime": datetime.now(UTC).isoformat(timespec="microseconds"),
        "reportingController": "halvard.dev/operator",
        "reportingInstance": identity,
    }


def owner_of(manifest: Manifest) -> str:
    """Returns the uid of an object's controller, or nothing."""
    owners = manifest["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def as_json(value: BaseModel) -> dict[str, Any]:
    """Returns a spec or status as the API server stores it: what is not there is left out."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)

"""Plans become calls: decisions are stored one after the other, and what rests on them is done as soon as they are.

Whatever the server answers goes into the cache at once, so the next turn reads its own writes.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel

from halvard.allowed import refusal
from halvard.cache import Cache, Cached
from halvard.kube import EVENTS, PODS, STUDIES, TRIALS, Conflict, Kube, KubeError, Manifest, NotFound, Refused
from halvard.metrics import Metrics
from halvard.plan import Action, Announce, CreateTrial, Plan, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.pods import LABEL_STUDY, PodSettings, build, pod_name
from halvard.progress import Progress
from halvard.study import Study
from halvard.trial import Trial

AT_ONCE = 16
QUOTA_EXHAUSTED = "QuotaExhausted"
POD_REFUSED = "PodRefused"
TEMPLATE_NOT_ALLOWED = "TemplateNotAllowed"
NOTE_LENGTH = 1024

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

    async def apply(self, progress: Progress, plan: Plan) -> bool:
        """Stores the plan's decisions strictly in order; Pods come and go beside them, each after all that precedes it.

        So a crash leaves a prefix of the decisions, and Pods that are still missing are started by the next fold.
        Returns whether all legs were taken; one that was not is told to `progress`. Raises KubeError: `progress` is no
        longer true then.
        """
        started: list[asyncio.Task[bool]] = []
        try:
            async with asyncio.TaskGroup() as effects:
                for action in in_order_of_need(plan.actions):
                    match action:
                        case CreateTrial() | SaveSpec() | SaveStatus():
                            await self._store(progress, action)
                        case StartLeg():
                            started.append(effects.create_task(self._start(progress, action)))
                        case StopLeg():
                            effects.create_task(self._stop(progress.study, action))
                        case Announce():
                            effects.create_task(self._announce(progress.study, action))
        except ExceptionGroup as group:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from group  # a TaskGroup keeps quiet about it where there are errors too
            raise group.exceptions[0] from group
        return all(leg.result() for leg in started)

    async def _store(self, progress: Progress, action: CreateTrial | SaveSpec | SaveStatus) -> None:
        match action:
            case CreateTrial():
                await self._create_trial(progress, action.trial)
            case SaveSpec():
                await self._save(progress, action.trial, "spec", action.trial.spec)
                self._metrics.promotions.labels("hot" if action.hot else "cold").inc()
            case SaveStatus():
                await self._save(progress, action.trial, "status", action.trial.status)

    # --- trials ---------------------------------------------------------------------------------------------------

    async def _create_trial(self, progress: Progress, trial: Trial) -> None:
        study = progress.study
        try:
            stored = await self._kube.create(TRIALS, study.namespace, trial_manifest(study, trial))
        except Conflict:
            found = await self._kube.get(TRIALS, study.namespace, trial.name)
            if owner_of(found) != study.uid:
                raise Refused(f"a Trial {trial.name} is there that does not belong to this Study") from None
            raise  # ours, and not known: everything is to be read again
        self._remember(progress, trial, stored)

    async def _save(self, progress: Progress, trial: Trial, part: str, value: BaseModel) -> None:
        study = progress.study
        version = progress.trials[trial.index].version  # an earlier action of this plan may have raised it
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
        try:
            async with self._slots:
                created = await self._kube.create(PODS, study.namespace, manifest)
        except Conflict:
            created = await self._kube.get(PODS, study.namespace, manifest["metadata"]["name"])
            if owner_of(created) != trial.uid:
                message = f"a Pod {created['metadata']['name']} is there that does not belong to Trial {trial.name}"
                return self._refused(progress, trial, POD_REFUSED, message)
        except Refused as error:
            return self._refused(progress, trial, QUOTA_EXHAUSTED if error.quota else POD_REFUSED, str(error))
        self._metrics.legs.labels("resumed" if leg.resume else "fresh").inc()
        self._cache.pods.seen(created)
        return True

    def _refused(self, progress: Progress, trial: Trial, reason: str, message: str) -> bool:
        self._metrics.pod_create_errors.labels(reason).inc()
        progress.refused(trial.index, reason, message, time.time())
        return False

    def _previous_node(self, study: Study, trial: Trial) -> str:
        """Where the attempt before ran, as long as its Pod is there."""
        pod = self._cache.pods.get((study.namespace, pod_name(trial.name, trial.attempt - 1)))
        return pod.value.node if pod else ""

    async def _stop(self, study: Study, action: StopLeg) -> None:
        name = pod_name(action.trial.name, action.attempt)
        try:
            pod = self._cache.pods.get((study.namespace, name))
            uid = pod.uid if pod else (await self._kube.get(PODS, study.namespace, name))["metadata"]["uid"]
            await self._kube.delete(PODS, study.namespace, name, uid)
        except (NotFound, Conflict):
            pass  # it is gone already

    # --- words ----------------------------------------------------------------------------------------------------

    async def _announce(self, study: Study, action: Announce) -> None:
        event = event_manifest(study, action, self._identity)
        try:
            await self._kube.create(EVENTS, study.namespace, event)
        except KubeError as error:  # an Event is a courtesy: nothing waits for it
            log.warning("%s/%s: no Event was made of %r: %s", study.namespace, study.name, action.message, error)


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
        "note": action.message[:NOTE_LENGTH],
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

"""What a Pod says, as one small value: whose it is, whether its trainer runs, how it ended, its last report. Pure.

The trainer container is believed, not the phase: with a sidecar the phase stays Running after the trainer has ended.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from halvard.events import Fault
from halvard.faults import fault_of, own_fault_of, vanished
from halvard.pods import (
    ANNOTATION_AVOIDS,
    ANNOTATION_TEMPLATE,
    COLLECTOR,
    TRAINER,
    gpus,
    whose,
)
from halvard_trainer.reports import Report, from_wire

_NOTHING: Mapping[str, Any] = {}
_STUCK = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",  # of an init container: a trainer is never restarted
    }
)


@dataclass(frozen=True, slots=True)
class PodView:
    """One Pod of a trial, if its owner is what its name says. Times are seconds since the epoch.

    `ended_at` is set once the trainer has ended, or the whole Pod; `drained` once the collector has ended too, and only
    then has `report` the last word. `left_behind`: the trainer has ended, and other containers but the collector have
    not. `lost`: the node is out of reach, so the leg may run elsewhere now. `fault`: why the attempt has no result if
    it is over, lost or gone; `own_fault`: the same apart from the deletion of its Pod. `stuck`: it cannot start by
    itself. `avoids`: the nodes that it may not run on.
    """

    name: str
    namespace: str
    uid: str
    version: str
    study: str
    trial: str
    attempt: int
    node: str
    avoids: tuple[str, ...]
    template: str
    gpus: float
    created_at: float
    started_at: float | None
    ended_at: float | None
    drained: bool
    deleting: bool
    left_behind: bool
    lost: bool
    fault: Fault
    own_fault: Fault
    stuck: Fault | None
    report: Report | None


def observe(pod: Mapping[str, Any]) -> PodView:
    """Returns what the Pod (as the API server's JSON) says; nothing that is missing or odd in its status raises."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or _NOTHING, pod.get("status") or _NOTHING
    annotations = metadata.get("annotations") or _NOTHING
    study, trial, attempt = whose(metadata["name"])
    trainer = _state(status.get("containerStatuses"), TRAINER)
    collector = _state(status.get("initContainerStatuses"), COLLECTOR)
    last = _state(status.get("initContainerStatuses"), COLLECTOR, "lastState")
    over = status.get("phase") in {"Succeeded", "Failed"}
    ended_at = _ended_at(metadata, status, trainer) if over or "terminated" in trainer else None
    left_behind = "terminated" in trainer and not over and _others_go_on(status)
    drained = ended_at is not None and (over or ("running" not in collector and not left_behind))
    lost = not drained and _lost(metadata, status)
    fault = fault_of(pod) if ended_at is not None or lost else vanished(pod)
    return PodView(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "",
        uid=metadata.get("uid") or "",
        version=metadata.get("resourceVersion") or "",
        study=study,
        trial=trial,
        attempt=attempt,
        node=spec.get("nodeName") or "",
        avoids=tuple((annotations.get(ANNOTATION_AVOIDS) or "").split()),
        template=annotations.get(ANNOTATION_TEMPLATE) or "",
        gpus=gpus(pod),
        created_at=_seconds(metadata.get("creationTimestamp")),
        started_at=_started_at(trainer),
        ended_at=ended_at,
        drained=drained,
        deleting="deletionTimestamp" in metadata,
        left_behind=left_behind,
        lost=lost,
        fault=fault,
        own_fault=own_fault_of(pod) if ended_at is not None and "deletionTimestamp" in metadata else fault,
        stuck=None if trainer.keys() & {"running", "terminated"} or over else _stuck(status),
        report=_last_word(collector, trainer, last if drained else _NOTHING),
    )


def _state(statuses: Sequence[Mapping[str, Any]] | None, name: str, which: str = "state") -> Mapping[str, Any]:
    for container in statuses or ():
        if container.get("name") == name:
            state: Mapping[str, Any] = container.get(which) or _NOTHING
            return state
    return _NOTHING


def _started_at(trainer: Mapping[str, Any]) -> float | None:
    running = trainer.get("running") or trainer.get("terminated") or _NOTHING
    return _seconds(running.get("startedAt")) or None  # a container that could not be executed started in 1970


def _ended_at(metadata: Mapping[str, Any], status: Mapping[str, Any], trainer: Mapping[str, Any]) -> float:
    """When the trainer ended; where nobody saw it, the Pod's last change."""
    finished = _seconds((trainer.get("terminated") or _NOTHING).get("finishedAt"))
    changes = [_seconds(condition.get("lastTransitionTime")) for condition in status.get("conditions") or ()]
    return finished or max([_seconds(metadata.get("creationTimestamp")), *changes])


def _lost(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """The Pod is to go because of its node, and while the node is out of reach nobody will say that it went."""
    if "deletionTimestamp" not in metadata:
        return False
    disruption = _condition(status, "DisruptionTarget")
    tainted = disruption.get("status") == "True" and disruption.get("reason") == "DeletionByTaintManager"
    return tainted or status.get("reason") == "NodeLost"


def _others_go_on(status: Mapping[str, Any]) -> bool:
    """Whether an ordinary container beside the trainer runs, or is still to run."""
    others = (each for each in status.get("containerStatuses") or () if each.get("name") != TRAINER)
    return any("terminated" not in (each.get("state") or _NOTHING) for each in others)


def _stuck(status: Mapping[str, Any]) -> Fault | None:
    """Why a container cannot start, in the kubelet's words: not the configuration's fault, but the whole study's."""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or _NOTHING).get("waiting") or _NOTHING
        if waiting.get("reason") in _STUCK:
            message = f"container {container.get('name')}: {waiting.get('message') or 'no details'}"
            return Fault(waiting["reason"], message, counted=False)
    return None


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    for condition in conditions:
        if condition.get("type") == kind:
            return condition
    return _NOTHING


def _last_word(collector: Mapping[str, Any], trainer: Mapping[str, Any], last: Mapping[str, Any]) -> Report | None:
    """The report that the collector left, which knows what was answered; of one that was killed, the latest of all.

    `last`: how the collector ended before, where it was not started again.
    """
    left = [report for state in (collector, trainer, last) if (report := _report(state))]
    if left and (collector.get("terminated") or _NOTHING).get("exitCode"):
        return max(left, key=lambda report: report.step)
    return left[0] if left else None


def _report(state: Mapping[str, Any]) -> Report | None:
    """The report in a termination message; words of another program are no report."""
    message = (state.get("terminated") or _NOTHING).get("message") or ""
    if not message.startswith("{"):
        return None
    try:
        return from_wire(json.loads(message))
    except (ValueError, RecursionError):
        return None


def _seconds(timestamp: str | None) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0

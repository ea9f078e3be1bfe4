"""Why an attempt ended: an ordered list of small checks on a Pod, each with its reason. Pure.

Infrastructure is never counted against a trial, a configuration's own failure is. Exit code 0 proves nothing: a program
that saves a checkpoint on SIGTERM exits 0, so a leg succeeds by its report alone (and then nobody asks this module).
"""

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from halvard.events import Fault
from halvard.pods import COLLECTOR, TRAINER

# Infrastructure: the leg runs again.
DISRUPTED = "Disrupted"
EVICTED = "Evicted"
NODE_SHUTDOWN = "NodeShutdown"
NODE_LOST = "NodeLost"
NODE_REJECTED = "NodeRejected"
STATUS_UNKNOWN = "ContainerStatusUnknown"
POD_DELETED = "PodDeleted"
POD_VANISHED = "PodVanished"
NEVER_STARTED = "NeverStarted"
COLLECTOR_LOST = "CollectorLost"
NODE_SUSPECT = "NodeSuspect"
# Configuration: the trial fails.
EPHEMERAL_STORAGE = "EphemeralStorage"
DEADLINE_EXCEEDED = "DeadlineExceeded"
INIT_FAILED = "InitFailed"
OOM_KILLED = "OOMKilled"
NON_ZERO_EXIT = "NonZeroExit"
METRICS_UNAVAILABLE = "MetricsUnavailable"
RETRIES_EXHAUSTED = "RetriesExhausted"

INFRASTRUCTURE = (
    DISRUPTED,
    EVICTED,
    NODE_SHUTDOWN,
    NODE_LOST,
    NODE_REJECTED,
    STATUS_UNKNOWN,
    POD_DELETED,
    POD_VANISHED,
    NEVER_STARTED,
    COLLECTOR_LOST,
    NODE_SUSPECT,
)
CONFIGURATION = (
    EPHEMERAL_STORAGE,
    DEADLINE_EXCEEDED,
    INIT_FAILED,
    OOM_KILLED,
    NON_ZERO_EXIT,
    METRICS_UNAVAILABLE,
    RETRIES_EXHAUSTED,
)

DISOWNED = Fault(POD_VANISHED, "its Pod is not its own any more: the owner reference was changed", counted=False)
VANISHED = Fault(POD_VANISHED, "the Pod was gone before it said how it ended", counted=False)

_DISRUPTIONS = ("DisruptionTarget", "TerminationTarget")  # Kubernetes (KEP-3329) and Kueue
_NODE_REASONS = {
    "Evicted": EVICTED,
    "Preempting": EVICTED,
    "NodeShutdown": NODE_SHUTDOWN,
    "Terminated": NODE_SHUTDOWN,
    "Shutdown": NODE_SHUTDOWN,
    "NodeLost": NODE_LOST,
    "NodeAffinity": NODE_REJECTED,
    "UnexpectedAdmissionError": NODE_REJECTED,
}
_BY_KUBELET = "TerminationByKubelet"
_MADE_UP = {("ContainerStatusUnknown", 137), ("Unknown", 255)}  # by the kubelet; by containerd after a reboot
_OVER_LIMIT = re.compile(r"exceed(s|ed) (the|its) [\w ]*limit")  # the kubelet's three ways to say it
_SIGNALS = {number.value: number.name for number in signal.Signals}
_AS_ASKED = {0, 128 + signal.SIGTERM, 128 + signal.SIGKILL}  # how a program ends that is asked to go
_LAST_WORDS = 400


@dataclass(frozen=True, slots=True)
class Ending:
    """What a Pod says about its end; `by_itself`: the trainer had ended before anything was done to its Pod."""

    reason: str
    message: str
    disruption: Mapping[str, Any]
    deleting: bool
    trainer: Mapping[str, Any]
    started: bool
    failed_init: Mapping[str, Any]
    memory_limit: str
    by_itself: bool
    collector: Mapping[str, Any]


def fault_of(pod: Mapping[str, Any]) -> Fault:
    """Returns why this attempt ended, supposing that it made no report at its budget: the first check that knows."""
    ending = _ending(pod)
    return next(fault for check in CHECKS if (fault := check(ending)))


def own_fault_of(pod: Mapping[str, Any]) -> Fault:
    """Returns the same of a Pod that was only deleted because its trainer had ended: that is no reason, then."""
    metadata = {name: value for name, value in pod["metadata"].items() if name != "deletionTimestamp"}
    return fault_of({**pod, "metadata": metadata})


def vanished(pod: Mapping[str, Any]) -> Fault:
    """Returns why an attempt is lost whose Pod is gone without a word of its end: who disrupted it, if anybody did."""
    disruption = _disruption(pod.get("status") or {})
    return _disrupted_by(disruption) if disruption else VANISHED


def over_its_storage_limit(end: Ending) -> Fault | None:
    """Evicted for using more disk than the Pod allowed itself (the kubelet deliberately sets no DisruptionTarget)."""
    if end.reason == "Evicted" and _OVER_LIMIT.search(end.message):
        return Fault(EPHEMERAL_STORAGE, _sentence(end.message), counted=True)
    return None


def disrupted(end: Ending) -> Fault | None:
    """Preempted, drained, on a lost or tainted node, or taken back by Kueue: whatever the exit code was."""
    if not end.disruption or end.by_itself:
        return None
    return _disrupted_by(end.disruption)


def ended_by_its_node(end: Ending) -> Fault | None:
    """Ended, or never admitted, by the kubelet."""
    reason = NODE_REJECTED if end.reason.startswith("OutOf") else _NODE_REASONS.get(end.reason)
    if reason is None or end.by_itself:
        return None
    return Fault(reason, f"{end.reason}: {_sentence(end.message) or 'the node gave no details'}", counted=False)


def status_unknown(end: Ending) -> Fault | None:
    """The node lost sight of the container and made up an exit code, as for all that a reboot ended."""
    terminated = end.trainer if end.started else _terminated(end.failed_init)
    if (terminated.get("reason"), terminated.get("exitCode")) not in _MADE_UP:
        return None
    which = "the container" if end.started else f"init container {end.failed_init['name']}"
    return Fault(STATUS_UNKNOWN, f"the node lost track of {which}", counted=False)


def deleted(end: Ending) -> Fault | None:
    """Somebody deleted the Pod, and the trainer went with it."""
    if not end.deleting or end.by_itself:
        return None
    return Fault(POD_DELETED, "the Pod was deleted", counted=False)


def over_its_deadline(end: Ending) -> Fault | None:
    """Took longer than the template's activeDeadlineSeconds, which begin before images are pulled."""
    if end.reason != "DeadlineExceeded":
        return None
    message = _sentence(end.message) or "activeDeadlineSeconds is over"
    if not end.started:
        return Fault(NEVER_STARTED, f"{end.reason}: {message}", counted=False)
    return Fault(DEADLINE_EXCEEDED, message, counted=True)


def init_failed(end: Ending) -> Fault | None:
    """One of the user's init containers failed, so the trainer was never started."""
    if end.started or not end.failed_init:
        return None
    how = _exit(_terminated(end.failed_init))
    return Fault(INIT_FAILED, f"init container {end.failed_init['name']} {how}", counted=True)


def never_started(end: Ending) -> Fault | None:
    """The Pod ended before its trainer began."""
    if end.started:
        return None
    words = ": ".join(filter(None, (end.reason, _sentence(end.message))))
    return Fault(NEVER_STARTED, words or "the Pod ended before its trainer started", counted=False)


def out_of_memory(end: Ending) -> Fault | None:
    """The kernel killed the trainer for its memory."""
    if end.trainer.get("reason") != "OOMKilled":
        return None
    limit = f" (limit {end.memory_limit})" if end.memory_limit else ""
    message = f"the trainer used more memory than it may{limit}"
    return Fault(OOM_KILLED, message, counted=True, exit_code=end.trainer.get("exitCode"))


def non_zero_exit(end: Ending) -> Fault | None:
    """The trainer failed, or could not be executed at all (StartError)."""
    if not end.trainer.get("exitCode"):
        return None
    return Fault(NON_ZERO_EXIT, f"the trainer {_exit(end.trainer)}", counted=True, exit_code=end.trainer["exitCode"])


def not_terminated(end: Ending) -> Fault | None:
    """The Pod was declared over while its trainer was last seen running."""
    if "exitCode" in end.trainer:
        return None
    return Fault(NODE_LOST, "the Pod was declared over while its trainer was last seen running", counted=False)


def collector_lost(end: Ending) -> Fault | None:
    """The sidecar did not live to the end, or was not started again: a report may lie there that nobody read."""
    code = (end.collector.get("terminated") or {}).get("exitCode")
    if not end.collector or code == 0:
        return None
    how = "was not running" if code is None else f"ended with exit code {code}"
    return Fault(
        COLLECTOR_LOST, f"the trainer exited 0, but {COLLECTOR} {how} and may not have read all", counted=False
    )


def metrics_unavailable(_: Ending) -> Fault:
    """The trainer ended well, but its report at the budget is missing."""
    return Fault(
        METRICS_UNAVAILABLE, "the trainer exited 0 without a report of the objective at its budget", counted=True
    )


CHECKS: Sequence[Callable[[Ending], Fault | None]] = (
    over_its_storage_limit,  # before `ended_by_its_node`: it too is reason Evicted
    disrupted,
    ended_by_its_node,
    status_unknown,  # exit codes mean nothing from here on up
    deleted,
    over_its_deadline,
    init_failed,
    never_started,
    out_of_memory,
    non_zero_exit,
    not_terminated,
    collector_lost,
    metrics_unavailable,  # always answers
)


def _ending(pod: Mapping[str, Any]) -> Ending:
    status = pod.get("status") or {}
    state = _named(status.get("containerStatuses"), TRAINER).get("state") or {}
    trainer = state.get("terminated") or {}
    disruption = _disruption(status)
    return Ending(
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        disruption=disruption,
        deleting="deletionTimestamp" in pod["metadata"],
        trainer=trainer,
        started=bool(trainer) or "running" in state,
        failed_init=_failed_init(pod, status),
        memory_limit=_memory_limit(pod),
        by_itself=_by_itself(pod["metadata"], status, trainer, disruption),
        collector=_named(status.get("initContainerStatuses"), COLLECTOR).get("state") or {},
    )


def _named(items: Sequence[Mapping[str, Any]] | None, name: str) -> Mapping[str, Any]:
    return next((item for item in items or () if item.get("name") == name), {})


def _disruption(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The disruption condition, if one is set: a stale one (the deletion never came) goes back to False."""
    conditions = status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") in _DISRUPTIONS and c.get("status") == "True"), {})


def _disrupted_by(disruption: Mapping[str, Any]) -> Fault:
    words = ": ".join(filter(None, (disruption.get("reason"), disruption.get("message"))))
    return Fault(DISRUPTED, _sentence(words) or "the Pod was disrupted", counted=False)


def _terminated(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return (container.get("state") or {}).get("terminated") or {}


def _failed_init(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Any]:
    init = (pod.get("spec") or {}).get("initContainers") or ()
    sidecars = {container.get("name") for container in init if container.get("restartPolicy") == "Always"}
    statuses: Sequence[Mapping[str, Any]] = status.get("initContainerStatuses") or ()
    for container in statuses:
        if _terminated(container).get("exitCode") and container.get("name") not in sidecars:
            return container
    return {}


def _memory_limit(pod: Mapping[str, Any]) -> str:
    resources = _named((pod.get("spec") or {}).get("containers"), TRAINER).get("resources") or {}
    return (resources.get("limits") or {}).get("memory") or ""


def _by_itself(
    metadata: Mapping[str, Any], status: Mapping[str, Any], trainer: Mapping[str, Any], disruption: Mapping[str, Any]
) -> bool:
    """Whether the trainer ended in a second before the Pod was first disrupted or asked to go.

    A Pod that failed by itself is often still there, its sidecar draining, when a drain or a deletion comes along.
    But it is the node's clock against the API server's. So they are not asked about a trainer that ended as one that is
    asked to go does, nor where the Pod came to the node before it was created: at worst its leg runs again, and ends so
    again. The kubelet's own disruption has the time at which the last container had ended.
    """
    as_asked = trainer.get("exitCode") in _AS_ASKED and trainer.get("reason") != "OOMKilled"
    arrived, created = status.get("startTime"), metadata.get("creationTimestamp")
    behind = arrived and created and datetime.fromisoformat(arrived) < datetime.fromisoformat(created)
    if not trainer.get("finishedAt") or as_asked or behind or disruption.get("reason") == _BY_KUBELET:
        return False
    finished, disturbances = datetime.fromisoformat(trainer["finishedAt"]), []
    if disruption.get("lastTransitionTime"):
        disturbances.append(datetime.fromisoformat(disruption["lastTransitionTime"]))
    if metadata.get("deletionTimestamp"):
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        disturbances.append(datetime.fromisoformat(metadata["deletionTimestamp"]) - grace)
    return bool(disturbances) and finished < min(disturbances)


def _exit(terminated: Mapping[str, Any]) -> str:
    """How it ended and what it said last: `exited with code 1: ValueError: ...`."""
    code = terminated.get("exitCode") or 0
    how = f"exited with code {code}"
    if terminated.get("reason") in {"StartError", "ContainerCannotRun"}:
        how = f"could not be started (exit code {code})"
    elif name := _SIGNALS.get(terminated.get("signal") or code - 128):
        how = f"was killed by {name} (exit code {code})"
    words = (terminated.get("message") or "").strip()
    if not words or words.startswith("{"):  # the library's last report, not words
        return how
    return f"{how}: {words if len(words) <= _LAST_WORDS else '…' + words[-_LAST_WORDS:]}"


def _sentence(words: str) -> str:
    return " ".join(words.split())[:_LAST_WORDS]

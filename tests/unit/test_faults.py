from typing import Any

import pytest

from halvard import faults
from halvard.events import Fault
from halvard.pods import COLLECTOR
from podstatus import BEGUN, DISTURBED, condition, exited, pod

KILLED = exited(137)
EVICTED_BY_API = condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting")
TAINTED = condition("DisruptionTarget", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
UNKNOWN = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}}
BEFORE, LONG_BEFORE = "2026-03-01T10:04:59Z", "2026-03-01T10:03:00Z"
REBOOTED = exited(255, reason="Unknown")
LONG_INIT = [{"name": "download", "state": exited(137)}]

INFRASTRUCTURE: dict[str, tuple[dict[str, Any], str, str]] = {
    "preempted by the scheduler": (
        pod(
            KILLED, conditions=[condition("DisruptionTarget", "PreemptionByScheduler", "preempting")], deleted=DISTURBED
        ),
        faults.DISRUPTED,
        "PreemptionByScheduler: preempting",
    ),
    "drained, and the trainer saved a checkpoint and exited 0": (
        pod(exited(0), phase="Succeeded", conditions=[EVICTED_BY_API], deleted=DISTURBED),
        faults.DISRUPTED,
        "EvictionByEvictionAPI: Eviction API: evicting",
    ),
    "on a node that is out of reach": (
        pod({"running": {"startedAt": BEGUN}}, phase="Running", conditions=[TAINTED], deleted=DISTURBED),
        faults.DISRUPTED,
        "DeletionByTaintManager: Taint manager: deleting due to NoExecute taint",
    ),
    "orphaned, as its node was deleted": (
        pod(
            {"running": {"startedAt": BEGUN}},
            conditions=[condition("DisruptionTarget", "DeletionByPodGC", "node gone")],
        ),
        faults.DISRUPTED,
        "DeletionByPodGC: node gone",
    ),
    "taken back by Kueue": (
        pod(KILLED, conditions=[condition("TerminationTarget", "Preempted", "to make room")], deleted=DISTURBED),
        faults.DISRUPTED,
        "Preempted: to make room",
    ),
    "evicted by a node under pressure": (
        pod(
            KILLED,
            reason="Evicted",
            message="The node was low on resource: ephemeral-storage. Container trainer was using 9Gi, request is 0. ",
        ),
        faults.EVICTED,
        "Evicted: The node was low on resource: ephemeral-storage. Container trainer was using 9Gi, request is 0.",
    ),
    "preempted by the kubelet for a critical Pod": (
        pod(KILLED, reason="Preempting", message="Preempted in order to admit critical pod"),
        faults.EVICTED,
        "Preempting: Preempted in order to admit critical pod",
    ),
    "ended by a graceful node shutdown": (
        pod(exited(143), reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
        faults.NODE_SHUTDOWN,
        "Terminated: Pod was terminated in response to imminent node shutdown.",
    ),
    "sent to a node that shuts down": (
        pod(reason="NodeShutdown", message="Pod was rejected as the node is shutting down."),
        faults.NODE_SHUTDOWN,
        "NodeShutdown: Pod was rejected as the node is shutting down.",
    ),
    "on a node that is lost": (
        pod({"running": {"startedAt": BEGUN}}, phase="Running", reason="NodeLost", deleted=DISTURBED),
        faults.NODE_LOST,
        "NodeLost: the node gave no details",
    ),
    "rejected: the GPU is gone": (
        pod(reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices present"),
        faults.NODE_REJECTED,
        "UnexpectedAdmissionError: Allocate failed due to no healthy devices present",
    ),
    "rejected: out of GPUs": (
        pod(reason="OutOfnvidia.com/gpu", message="Node didn't have enough resource: nvidia.com/gpu"),
        faults.NODE_REJECTED,
        "OutOfnvidia.com/gpu: Node didn't have enough resource: nvidia.com/gpu",
    ),
    "rejected: the node's labels changed": (
        pod(reason="NodeAffinity", message="Predicate NodeAffinity failed"),
        faults.NODE_REJECTED,
        "NodeAffinity: Predicate NodeAffinity failed",
    ),
    "the kubelet lost track of the container": (
        pod(UNKNOWN),
        faults.STATUS_UNKNOWN,
        "the node lost track of the container",
    ),
    "on a node that was started anew": (
        pod(REBOOTED),
        faults.STATUS_UNKNOWN,
        "the node lost track of the container",
    ),
    "whose init container ran when its node was started anew": (
        pod({"waiting": {}}, initContainerStatuses=[{"name": "download", "state": REBOOTED}]),
        faults.STATUS_UNKNOWN,
        "the node lost track of init container download",
    ),
    "drained on a node whose clock is behind": (
        pod(exited(143, at=LONG_BEFORE), conditions=[EVICTED_BY_API], deleted=DISTURBED),
        faults.DISRUPTED,
        "EvictionByEvictionAPI: Eviction API: evicting",
    ),
    "deleted on a node whose clock is behind, and killed after its grace": (
        pod(exited(137, at=LONG_BEFORE), deleted=DISTURBED),
        faults.POD_DELETED,
        "the Pod was deleted",
    ),
    "deleted on a node whose clock is behind, and the trainer saved a checkpoint and exited 0": (
        pod(exited(0, at=LONG_BEFORE), phase="Succeeded", deleted=DISTURBED),
        faults.POD_DELETED,
        "the Pod was deleted",
    ),
    "ended by its kubelet, which says so only after its last container has ended": (
        pod(exited(1, at=BEFORE), reason="Evicted", conditions=[condition("DisruptionTarget", "TerminationByKubelet")]),
        faults.DISRUPTED,
        "TerminationByKubelet",
    ),
    "over its deadline while its image was pulled": (
        pod({"waiting": {"reason": "ImagePullBackOff"}}, reason="DeadlineExceeded", message="Pod was active too long"),
        faults.NEVER_STARTED,
        "DeadlineExceeded: Pod was active too long",
    ),
    "over its deadline in an init container": (
        pod({"waiting": {}}, reason="DeadlineExceeded", message="", initContainerStatuses=LONG_INIT),
        faults.NEVER_STARTED,
        "DeadlineExceeded: activeDeadlineSeconds is over",
    ),
    "deleted by hand": (pod(exited(143), deleted=DISTURBED), faults.POD_DELETED, "the Pod was deleted"),
    "deleted by hand before it started": (
        pod({"waiting": {"reason": "ContainerCreating"}}, phase="Pending", deleted=DISTURBED),
        faults.POD_DELETED,
        "the Pod was deleted",
    ),
    "refused by the kubelet for a reason of its own": (
        pod(reason="SysctlForbidden", message="forbidden sysctl"),
        faults.NEVER_STARTED,
        "SysctlForbidden: forbidden sysctl",
    ),
    "over before anything started": (pod(), faults.NEVER_STARTED, "the Pod ended before its trainer started"),
    "the sidecar was killed": (
        pod(exited(0), phase="Succeeded", initContainerStatuses=[{"name": COLLECTOR, "state": exited(137)}]),
        faults.COLLECTOR_LOST,
        "the trainer exited 0, but halvard-collector ended with exit code 137 and may not have read all",
    ),
    "the sidecar was not started again": (
        pod(
            exited(0),
            phase="Succeeded",
            initContainerStatuses=[{"name": COLLECTOR, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
        ),
        faults.COLLECTOR_LOST,
        "the trainer exited 0, but halvard-collector was not running and may not have read all",
    ),
    "declared over while the trainer was last seen running": (
        pod({"running": {"startedAt": BEGUN}}),
        faults.NODE_LOST,
        "the Pod was declared over while its trainer was last seen running",
    ),
}

CONFIGURATION: dict[str, tuple[dict[str, Any], str, str]] = {
    "over its ephemeral storage": (
        pod(
            KILLED,
            reason="Evicted",
            message="Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        ),
        faults.EPHEMERAL_STORAGE,
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
    ),
    "over its container's ephemeral storage": (
        pod(KILLED, reason="Evicted", message='Container trainer exceeded its local ephemeral storage limit "1Gi". '),
        faults.EPHEMERAL_STORAGE,
        'Container trainer exceeded its local ephemeral storage limit "1Gi".',
    ),
    "over the limit of an emptyDir": (
        pod(KILLED, reason="Evicted", message='Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '),
        faults.EPHEMERAL_STORAGE,
        'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi".',
    ),
    "out of memory": (
        pod(exited(137, reason="OOMKilled")),
        faults.OOM_KILLED,
        "the trainer used more memory than it may (limit 2Gi)",
    ),
    "over its deadline": (
        pod(
            exited(143),
            reason="DeadlineExceeded",
            message="Pod was active on the node longer than the specified deadline",
        ),
        faults.DEADLINE_EXCEEDED,
        "Pod was active on the node longer than the specified deadline",
    ),
    "failed": (pod(exited(1)), faults.NON_ZERO_EXIT, "the trainer exited with code 1"),
    "failed with last words": (
        pod(exited(1, message="Traceback ...\nValueError: lr is too large\n")),
        faults.NON_ZERO_EXIT,
        "the trainer exited with code 1: Traceback ...\nValueError: lr is too large",
    ),
    "failed after a report, which is no last words": (
        pod(exited(3, message='{"step":2,"metrics":{"loss":1.5}}')),
        faults.NON_ZERO_EXIT,
        "the trainer exited with code 3",
    ),
    "crashed": (pod(exited(139)), faults.NON_ZERO_EXIT, "the trainer was killed by SIGSEGV (exit code 139)"),
    "exited with the largest code, which is no signal": (
        pod(exited(255)),
        faults.NON_ZERO_EXIT,
        "the trainer exited with code 255",
    ),
    "of a command that does not exist": (
        pod(exited(128, reason="StartError", message='exec: "trian": executable file not found in $PATH')),
        faults.NON_ZERO_EXIT,
        'the trainer could not be started (exit code 128): exec: "trian": executable file not found in $PATH',
    ),
    "whose init container failed": (
        pod(
            {"waiting": {"reason": "PodInitializing"}},
            initContainerStatuses=[
                {"name": "halvard-collector", "state": exited(137)},
                {"name": "download", "state": exited(4, message="no such data set")},
            ],
        ),
        faults.INIT_FAILED,
        "init container download exited with code 4: no such data set",
    ),
    "done without a report": (
        pod(exited(0), phase="Succeeded"),
        faults.METRICS_UNAVAILABLE,
        "the trainer exited 0 without a report of the objective at its budget",
    ),
    "failed by itself, and drained afterwards": (
        pod(exited(1, at=BEFORE), conditions=[EVICTED_BY_API], deleted=DISTURBED),
        faults.NON_ZERO_EXIT,
        "the trainer exited with code 1",
    ),
    "failed by itself, and deleted afterwards": (
        pod(exited(1, at=BEFORE), deleted=DISTURBED),
        faults.NON_ZERO_EXIT,
        "the trainer exited with code 1",
    ),
    "out of memory by itself, and drained afterwards": (
        pod(exited(137, reason="OOMKilled", at=BEFORE), conditions=[EVICTED_BY_API], deleted=DISTURBED),
        faults.OOM_KILLED,
        "the trainer used more memory than it may (limit 2Gi)",
    ),
    "out of memory while a stale disruption was taken back": (
        pod(exited(137, reason="OOMKilled"), conditions=[{**EVICTED_BY_API, "status": "False"}]),
        faults.OOM_KILLED,
        "the trainer used more memory than it may (limit 2Gi)",
    ),
}


@pytest.mark.parametrize("case", INFRASTRUCTURE)
def test_infrastructure_is_not_counted_for_a_pod(case: str) -> None:
    status, reason, message = INFRASTRUCTURE[case]
    assert Fault(reason, message, counted=False) == faults.fault_of(status)


@pytest.mark.parametrize("case", CONFIGURATION)
def test_the_configuration_is_counted_for_a_pod(case: str) -> None:
    status, reason, message = CONFIGURATION[case]
    fault = faults.fault_of(status)
    assert (fault.reason, fault.message, fault.counted) == (reason, message, True)


@pytest.mark.parametrize(
    ("arrived", "reason"),
    [("2026-03-01T09:59:01Z", faults.NON_ZERO_EXIT), ("2026-03-01T09:58:55Z", faults.DISRUPTED)],
)
def test_the_clock_of_a_node_that_is_behind_is_not_asked_what_came_first(arrived: str, reason: str) -> None:
    ended = pod(exited(1, at=BEFORE), conditions=[EVICTED_BY_API], deleted=DISTURBED, startTime=arrived)
    assert faults.fault_of(ended).reason == reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (pod({"running": {"startedAt": BEGUN}}, phase="Running"), faults.POD_VANISHED),
        (pod({"running": {"startedAt": BEGUN}}, phase="Running", deleted=DISTURBED), faults.POD_VANISHED),
        (pod(phase="Pending", conditions=[EVICTED_BY_API], deleted=DISTURBED), faults.DISRUPTED),
        (pod(phase="Pending", conditions=[{**EVICTED_BY_API, "status": "False"}]), faults.POD_VANISHED),
    ],
)
def test_a_vanished_pod_is_not_counted_and_who_disrupted_it_is_known(status: dict[str, Any], reason: str) -> None:
    fault = faults.vanished(status)
    assert (fault.reason, fault.counted) == (reason, False)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (pod(exited(1, at=DISTURBED), deleted=DISTURBED), faults.NON_ZERO_EXIT),  # in the same second
        (pod(exited(137), deleted=DISTURBED), faults.NON_ZERO_EXIT),
        (pod(exited(0), deleted=DISTURBED), faults.METRICS_UNAVAILABLE),
        (pod(exited(143), conditions=[EVICTED_BY_API], deleted=DISTURBED), faults.DISRUPTED),
        (pod(exited(143), reason="Terminated", deleted=DISTURBED), faults.NODE_SHUTDOWN),
    ],
)
def test_apart_from_its_deletion_all_that_happened_to_a_pod_counts(status: dict[str, Any], reason: str) -> None:
    assert faults.own_fault_of(status).reason == reason
    assert not faults.fault_of(status).counted


def test_long_last_words_lose_their_beginning() -> None:
    fault = faults.fault_of(pod(exited(1, message="x" * 5000 + " the cause")))
    assert fault.message.endswith(" the cause")
    assert len(fault.message) < 500


def test_every_reason_has_a_case() -> None:
    seen = {reason for _, reason, _ in (*INFRASTRUCTURE.values(), *CONFIGURATION.values())}
    public = {name: value for name, value in vars(faults).items() if name.isupper() and not name.startswith("_")}
    reasons = {value for value in public.values() if isinstance(value, str)}
    of_no_pod = {faults.POD_VANISHED, faults.NODE_SUSPECT, faults.RETRIES_EXHAUSTED}
    assert reasons - of_no_pod - {"trainer", COLLECTOR} == seen

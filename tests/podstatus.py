"""Pods as the API server shows them, for the tests of what is read off them."""

from typing import Any

from halvard.pods import COLLECTOR

BEGUN, DISTURBED, ENDED = "2026-03-01T10:00:00Z", "2026-03-01T10:05:00Z", "2026-03-01T10:05:09Z"


def pod(trainer: dict[str, Any] | None = None, *, deleted: str = "", **status: Any) -> dict[str, Any]:
    """A Pod whose container `trainer` has this state; `deleted`: when its deletion was asked for (grace: 30 s)."""
    metadata: dict[str, Any] = {
        "name": "digits-0003-2",
        "namespace": "team-a",
        "uid": "0a1b",
        "resourceVersion": "77",
        "creationTimestamp": "2026-03-01T09:59:00Z",
        "labels": {"halvard.dev/study": "digits", "halvard.dev/trial": "digits-0003", "halvard.dev/attempt": "2"},
        "annotations": {"halvard.dev/template": "abcdef0123"},
    }
    if deleted:
        metadata["deletionTimestamp"] = deleted.replace("00Z", "30Z")
        metadata["deletionGracePeriodSeconds"] = 30
    if trainer is not None:
        status["containerStatuses"] = [{"name": "trainer", "state": trainer}]
    return {
        "metadata": metadata,
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": COLLECTOR, "restartPolicy": "Always"}],
            "containers": [{"name": "trainer", "resources": {"limits": {"memory": "2Gi", "nvidia.com/gpu": "1"}}}],
        },
        "status": {"phase": "Failed", **status},
    }


def beside(pod: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The Pod with an ordinary container `tensorboard` as well."""
    pod["spec"]["containers"].append({"name": "tensorboard"})
    pod["status"].setdefault("containerStatuses", []).append({"name": "tensorboard", "state": state})
    return pod


def exited(code: int, *, at: str = ENDED, **more: Any) -> dict[str, Any]:
    """The state of a container that ran and exited."""
    reason = "Error" if code else "Completed"
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": BEGUN, "finishedAt": at, **more}}


def condition(kind: str, reason: str, message: str = "", status: str = "True") -> dict[str, Any]:
    """A condition of a Pod that was set when it was disturbed."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": DISTURBED}

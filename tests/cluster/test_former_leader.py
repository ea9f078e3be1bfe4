"""What an operator may still do after another one has taken over, and no version check stops: it starts Pods."""

from typing import Any

import pytest

from cluster.scripted import Scene, eventually, template
from halvard.kube import PODS, Manifest

pytestmark = pytest.mark.unsound(
    "attempts", "decided", reason="the test itself creates Pods as no leader would that still is one"
)


async def start_in_its_stead(scene: Scene, pod: Manifest, attempt: int) -> Manifest:
    """Creates the Pod of an attempt, as a leader does that was paused right before and wakes up now."""
    metadata: dict[str, Any] = pod["metadata"]
    kept = {key: metadata[key] for key in ("annotations", "labels", "ownerReferences")}
    kept["labels"] = {**kept["labels"], "halvard.dev/attempt": str(attempt)}
    name = metadata["name"].removesuffix("-1") + f"-{attempt}"
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {**kept, "name": name}, "spec": spec}
    return await scene.kube.create(PODS, scene.namespace, manifest)


async def test_a_pod_of_an_attempt_that_is_over_is_stopped(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(template=template(terminationGracePeriodSeconds=1))
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
        await scene.pod(0, attempt=2)
        again = await start_in_its_stead(scene, pod, attempt=1)
        await scene.runs(again)
        await eventually(lambda: stopped(scene, again))
        second = await scene.pod(0, attempt=2)
    assert "deletionTimestamp" not in second["metadata"]


async def stopped(scene: Scene, pod: Manifest) -> bool:
    """Whether somebody deleted it."""
    others = [other["metadata"] for other in await scene.pods()]
    return all(other["uid"] != pod["metadata"]["uid"] or "deletionTimestamp" in other for other in others)


async def test_a_pod_that_came_and_went_before_it_was_due_has_its_result(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.change(suspend=True)
        await scene.condition("Suspended", "True", "SuspendSet")
        await eventually(lambda: requeued(scene))
        early = await start_in_its_stead(scene, pod, attempt=2)
        await scene.runs(early)
        await scene.ends(early, report={"step": 1, "metrics": {"loss": 0.5}, "checkpoint": "step-1"})
        await scene.change(suspend=False)
        await scene.pod(1)
        trial = await scene.trial(0)
    assert [result["value"] for result in trial["status"]["rungs"]] == [0.5]


async def requeued(scene: Scene) -> bool:
    """Whether the trial waits for its second attempt."""
    return bool((await scene.trial(0)).get("status", {}).get("attempt") == 2)

"""Every field of a Study, edited in every state that a Study can be in, against a real API server and the operator.

Each edit is refused with words, or it is taken note of; neither loses anything that was found.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from cluster.scripted import Scene, eventually, template
from halvard.kube import KubeError, Manifest
from halvard.progress import MOST_BARREN
from halvard.study import StudySpec

Spec = dict[str, Any]
LIMITS = {"trials": 30}
ON_EXIT = {"action": "FailTrial", "onExitCodes": {"operator": "In", "values": [3]}}
FREE: dict[str, list[Any]] = {  # those first that end no state
    "limits": [
        LIMITS,
        {**LIMITS, "gpuHours": 5},
        {**LIMITS, "duration": "90h"},
        {**LIMITS, "failedTrials": 7},
        {**LIMITS, "retries": 0},
        {**LIMITS, "retries": 30},
    ],
    "failurePolicy": [{"rules": [ON_EXIT]}],
    "parallelism": [2, 0, 1],
    "template": [template(nodeSelector={"zone": "b"})],
    "suspend": [True, False],
}
FIXED: Spec = {
    "objective": {"metric": "loss", "goal": "maximize"},
    "parameters": [{"name": "lr", "float": {"min": 0.1, "max": 0.2}}],
    "sampler": {"random": {}},
    "initialPoints": [{"lr": 0.01}],
    "scheduler": {"none": {"budget": 9}},
    "seed": 8,
    "checkpoint": {"persistentVolumeClaim": {"claimName": "checkpoints"}},
    "collector": {"stdout": {"pattern": "(?P<loss>.+)"}},
}


async def waiting(scene: Scene) -> None:
    await scene.apply()
    await scene.pod(0)


async def running(scene: Scene) -> None:
    await waiting(scene)
    await scene.runs(await scene.pod(0))


async def between(scene: Scene) -> None:
    await scene.apply()
    await scene.leg(0, 0.5)
    await scene.pod(1)


async def suspended(scene: Scene) -> None:
    await waiting(scene)
    await scene.change(suspend=True)
    await scene.condition("Suspended", "True", "SuspendSet")


async def degraded(scene: Scene) -> None:
    await scene.apply(template=template(activeDeadlineSeconds=-1))
    await scene.condition("Degraded", "True", "PodRefused")


async def backing_off(scene: Scene) -> None:
    """Its leg waits for 4 s until it runs again."""
    await waiting(scene)
    for attempt in (1, 2, 3):
        await vanishes(scene, await scene.pod(0, attempt))
    await eventually(lambda: has_faults(scene, 3))


async def stuck(scene: Scene) -> None:
    await waiting(scene)
    waits = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    await scene._status(await scene.pod(0), "Pending", waits, waits)
    await scene.condition("Degraded", "True", "ImagePullBackOff")


async def held_up(scene: Scene) -> None:
    """So many attempts in a row came to nothing that no others are begun."""
    await scene.apply(parallelism=MOST_BARREN)
    pods = []
    for index in range(MOST_BARREN):
        pods.append(await scene.pod(index))
        await scene.runs(pods[index])
    await asyncio.gather(*(vanishes(scene, pod) for pod in pods))
    await scene.condition("Degraded", "True", "TooManyFaults")


async def vanishes(scene: Scene, pod: Manifest) -> None:
    await scene.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")


async def has_faults(scene: Scene, number: int) -> bool:
    return bool((await scene.trial(0))["status"].get("faults") == number)


async def complete(scene: Scene) -> None:
    await scene.apply(limits={"trials": 1})
    await scene.leg(0, 0.5)
    await scene.condition("Complete", "True", "TrialsFinished")


async def failed(scene: Scene) -> None:
    await scene.apply(limits={"trials": 9, "failedTrials": 0})
    pod = await scene.pod(0)
    await scene.runs(pod)
    await scene.ends(pod, code=1)
    await scene.condition("Failed", "True", "TooManyFailedTrials")


ACTIVE = (waiting, running, between, suspended, degraded, backing_off, stuck, held_up)
STATES: dict[str, Callable[[Scene], Awaitable[None]]] = {state.__name__: state for state in (*ACTIVE, complete, failed)}
FINAL = {"complete": "Complete", "failed": "Failed"}
SEEN = pytest.mark.unsound("quiet", reason="that an edit was seen is written also once the study is over")


def test_every_field_is_one_that_may_change_or_one_that_may_not() -> None:
    fields = {field.alias or name for name, field in StudySpec.model_fields.items()}
    assert fields == set(FREE) | set(FIXED)


@pytest.mark.parametrize("state", [pytest.param(state, marks=SEEN if state in FINAL else ()) for state in STATES])
async def test_each_edit_is_refused_with_words_or_taken_note_of_and_nothing_is_lost(scene: Scene, state: str) -> None:
    scene.settings = replace(scene.settings, namespaces=(scene.namespace,))
    async with scene.operator():
        await STATES[state](scene)
        before = [found(trial) for trial in await scene.trials()]
        for field, value in FIXED.items():
            words = await refusal(scene, **{field: value})
            assert f"{field} cannot be changed once the study has started" in words, field
        for field, values in FREE.items():
            for value in values:
                await scene.change(**{field: value})
                await eventually(lambda: has_taken_note(scene))
        after = {trial["metadata"]["uid"]: found(trial) for trial in await scene.trials()}
        for trial in before:
            assert_kept(trial, after[trial["uid"]])
        if state in FINAL:
            assert (await scene.study())["status"]["state"] == FINAL[state]
            assert len(after) == len(before)
        else:
            await eventually(lambda: goes_on(scene))
        faults = {trial["uid"]: trial["faults"] for trial in before}
        assert all(trial["faults"] == faults.get(trial["uid"], 0) for trial in map(found, await scene.trials()))


async def refusal(scene: Scene, **spec: Any) -> str:
    """The API server's words on an edit, empty where it takes it."""
    try:
        await scene.change(**spec)
    except KubeError as error:
        return str(error)
    return ""


async def has_taken_note(scene: Scene) -> bool:
    study = await scene.study()
    return bool(study["status"].get("observedGeneration") == study["metadata"]["generation"])


def found(trial: Manifest) -> Spec:
    """What a trial is and has found."""
    status, uid = trial.get("status", {}), trial["metadata"]["uid"]
    results = {"rungs": status.get("rungs", []), "faults": status.get("faults", 0), "state": status.get("state")}
    return {"uid": uid, **trial["spec"], **results}


def assert_kept(before: Spec, after: Spec) -> None:
    """The same configuration, the same results; what was over is over."""
    assert after["parameters"] == before["parameters"]
    assert after["rungs"][: len(before["rungs"])] == before["rungs"]
    if before["state"] in ("Complete", "Stopped", "Failed"):
        assert after["state"] == before["state"]


async def goes_on(scene: Scene) -> bool:
    """Whether some trial's present attempt has a Pod, and all such are made from the template as it is now."""
    study, pods = await scene.study(), {pod["metadata"]["name"]: pod for pod in await scene.pods()}
    present = [f"{t['metadata']['name']}-{t['status']['attempt']}" for t in await scene.trials() if "status" in t]
    selectors = [pods[name]["spec"].get("nodeSelector") for name in present if name in pods]
    return bool(selectors) and all(s == study["spec"]["template"]["spec"].get("nodeSelector") for s in selectors)

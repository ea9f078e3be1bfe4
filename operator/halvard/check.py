"""`halvard check`: a Study of two small trials in a cluster, from its first Pod to its end. `helm test` runs it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from halvard.kube import STUDIES, TRIALS, Kube, KubeError, Manifest

POLL = 1.0  # seconds
# The second trial is the better one: it is promoted while it waits in its Pod, if its report arrives in time.
TRAINER = """\
import os
from halvard_trainer.trial import Trial
trial = Trial({**os.environ, "HALVARD_VERDICT_TIMEOUT": "15"})
for step in trial.steps():
    trial.report(loss=trial.parameters["x"])
"""
NO_ANSWER = (
    "the best trial was promoted, but not in its own Pod: its reports came by the kubelet, not by the network; "
    "see that Pods of {namespace} reach the operator's Service on port 8443, and its name is resolved there"
)

Say = Callable[[str], None]


class CheckFailed(Exception):  # noqa: N818  # what is the case, as in halvard.kube
    """Studies do not run as they should in this cluster; the text says what was seen."""


async def check(
    kubeconfig: Path | None, namespace: str, image: str, limit: float, say: Say, *, pull_secrets: Sequence[str] = ()
) -> None:
    """Runs a Study with trials of `image` (the collector's), `limit` seconds at most, and deletes it.

    `pull_secrets` names the Secrets with which that image is pulled. Raises CheckFailed where the Study is not complete
    by then, or not as it should be, and NoCluster.
    """
    kube = await Kube.connect(kubeconfig)
    try:
        created = await kube.create(STUDIES, namespace, study(f"check-{uuid4().hex[:6]}", image, pull_secrets))
        name = created["metadata"]["name"]
        say(f"study {namespace}/{name} is created")
        try:
            status = await _end(kube, namespace, name, limit, say)
            await _promoted_in_its_pod(kube, namespace, status["best"]["trial"])
        finally:
            await kube.delete(STUDIES, namespace, name, created["metadata"]["uid"])
        say("both trials trained, and the better one was promoted in its own Pod")
    except KubeError as error:
        raise CheckFailed(f"the API server said: {error}") from error
    finally:
        await kube.close()


async def _end(kube: Kube, namespace: str, name: str, limit: float, say: Say) -> Manifest:
    """The status of a Study that is Complete; says how it gets there."""
    seen = ""
    try:
        async with asyncio.timeout(limit):
            while True:
                status: Manifest = (await kube.get(STUDIES, namespace, name)).get("status", {})
                if (now := summary(status)) != seen:
                    say(now)
                    seen = now
                if status.get("state") == "Complete":
                    return status
                if status.get("state") == "Failed":
                    raise CheckFailed(f"the study failed: {seen}")
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        raise CheckFailed(f"after {limit:.0f} s it is not complete: {seen}") from error


async def _promoted_in_its_pod(kube: Kube, namespace: str, trial: str) -> None:
    rungs = (await kube.get(TRIALS, namespace, trial))["status"]["rungs"]
    if len({rung["attempt"] for rung in rungs}) > 1:
        raise CheckFailed(NO_ANSWER.format(namespace=namespace))


def summary(status: Manifest) -> str:
    """Returns one line about where a Study stands, with every condition that holds."""
    if "observedGeneration" not in status:
        return "waiting for an operator that serves this namespace"
    trials = ", ".join(f"{count} {state}" for state, count in status.get("trials", {}).items() if count)
    conditions = [
        f"{condition['type']}/{condition['reason']}: {condition['message']}"
        for condition in status.get("conditions", ())
        if condition["status"] == "True"
    ]
    return "; ".join([f"{status['state']} ({trials or 'no trials'})", *conditions])


def study(name: str, image: str, pull_secrets: Sequence[str] = ()) -> Manifest:
    """Returns a Study of two trials that need no GPU and meet the restricted Pod Security Standard."""
    confined: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    trainer = {
        "name": "trainer",
        "image": image,
        "command": ["python3", "-c", TRAINER],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "250m", "memory": "64Mi"}},
        "securityContext": confined,
    }
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": STUDIES.api_version,
        "kind": "Study",
        "metadata": {"name": name},
        "spec": {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "x", "choice": [2, 1]}],
            "sampler": {"grid": {}},
            "scheduler": {"asha": {"minBudget": 1, "maxBudget": 2, "reductionFactor": 2}},
            "limits": {"trials": 2, "failedTrials": 0},
            "template": {
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "imagePullSecrets": [{"name": secret} for secret in pull_secrets],
                    "securityContext": user,
                    "containers": [trainer],
                }
            },
        },
    }

"""The operator against a real API server: what is refused, what fails, and who meddles."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from cluster.scripted import Scene, template
from halvard import reconcile
from halvard.kube import PODS, TRIALS, Resource

QUOTAS = Resource("", "v1", "resourcequotas")
WEBHOOKS = Resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")
WEBHOOK = {"apiVersion": WEBHOOKS.api_version, "kind": "ValidatingWebhookConfiguration"}


async def test_a_failed_trial_is_failed_and_the_next_one_starts(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.ends(pod, code=1)
        trial = await scene.trial_in(0, "Failed")
        await scene.pod(1)
    assert "exited with code 1" in trial["status"]["message"]


async def test_a_pod_that_is_deleted_runs_again_and_nothing_is_held_against_its_trial(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
        await scene.pod(0, attempt=2)
        trial = await scene.trial(0)
    assert (trial["status"]["state"], trial["status"]["faults"]) == ("Pending", 1)


async def test_an_exhausted_quota_is_a_condition_that_passes(scene: Scene) -> None:
    await set_quota(scene, 0)
    async with scene.operator():
        await scene.apply(parallelism=3)
        condition = await scene.condition("Degraded", "True", "QuotaExhausted")
        assert "exceeded quota" in condition["message"]
        await set_quota(scene, 10)
        for index in range(3):
            await scene.pod(index)
        await scene.condition("Degraded", "False", "Recovered")
        trials = await scene.trials()
    assert [trial["status"]["state"] for trial in trials] == ["Pending"] * 3


async def set_quota(scene: Scene, pods: int) -> None:
    """A ResourceQuota, with the status that its controller would write."""
    name, spec = "pods", {"hard": {"pods": str(pods)}}
    quotas = [item async for page in scene.kube.pages(QUOTAS, scene.namespace) for item in page.items]
    manifest = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec}
    current = quotas[0] if quotas else await scene.kube.create(QUOTAS, scene.namespace, manifest)
    for part, value in (("spec", spec), ("status", {**spec, "used": {"pods": "0"}})):
        version = current["metadata"]["resourceVersion"]
        current = await scene.kube.patch(QUOTAS, scene.namespace, name, version=version, part=part, value=value)


async def test_a_template_that_makes_no_pod_is_a_condition_in_the_servers_words_until_it_is_mended(
    scene: Scene,
) -> None:
    async with scene.operator():
        await scene.apply(parallelism=2, template=template(activeDeadlineSeconds=-1))
        condition = await scene.condition("Degraded", "True", "PodRefused")
        assert "spec.activeDeadlineSeconds: Invalid value: -1" in condition["message"]
        await scene.change(template=template(activeDeadlineSeconds=3600))
        await scene.pod(0)
        await scene.pod(1)
        await scene.condition("Degraded", "False", "Recovered")
        trials = await scene.trials()
    assert len(trials) == 2


async def test_a_trial_of_another_owner_is_a_condition_until_it_is_gone(scene: Scene) -> None:
    spec = {"index": 0, "budget": 1, "parameters": {"lr": 0.1}}
    manifest = {"apiVersion": TRIALS.api_version, "kind": "Trial", "metadata": {"name": "search-0000"}, "spec": spec}
    stranger = await scene.kube.create(TRIALS, scene.namespace, manifest)
    async with scene.operator():
        await scene.apply()
        condition = await scene.condition("Degraded", "True", "TrialRefused")
        await scene.kube.delete(TRIALS, scene.namespace, "search-0000", stranger["metadata"]["uid"])
        await scene.pod(0)
        await scene.condition("Degraded", "False", "Recovered")
    assert condition["message"] == "a Trial search-0000 is there that does not belong to this Study"


async def test_a_study_that_only_python_finds_fault_with_is_a_condition_until_it_is_mended(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(collector={"stdout": {"pattern": "(?P<loss>["}})
        condition = await scene.condition("Degraded", "True", "InvalidSpec")
        assert "spec.collector.stdout.pattern" in condition["message"]
        assert await scene.trials() == []
        await scene.change(collector={"stdout": {"pattern": "(?P<loss>[0-9.]+)"}})
        await scene.pod(0)
        await scene.condition("Degraded", "False", "Recovered")


@pytest.mark.unsound("orders", "sequence", "states", reason="whoever stops a trial by hand gives that no order")
async def test_a_trial_changed_by_hand_is_folded_anew(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.trial_in(0, "Running")
        trial = await scene.trial(0)
        status = {**trial["status"], "state": "Stopped", "message": "stopped by hand"}
        version = trial["metadata"]["resourceVersion"]
        await scene.kube.patch(TRIALS, scene.namespace, "search-0000", version=version, part="status", value=status)
        await scene.pod(1)
        _, verdict = await scene.push(pod, 1, 0.5)
    assert verdict == {"stop": "stopped by hand"}


async def test_a_stranger_and_an_old_attempt_write_nothing(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        token = await scene.token(pod)
        assert (await scene.push(pod, 1, 0.5, "not a token"))[0] == 401
        await scene.leg(0, 0.5)
        status, verdict = await scene.push(pod, 2, 0.001, token)
        trial = await scene.trial(0)
        metrics = await scene.metrics()
    assert status == 200
    assert "stop" in verdict
    assert [result["value"] for result in trial["status"]["rungs"]] == [0.5]
    assert 'halvard_pushes_total{result="unauthorized"} 1.0' in metrics
    assert 'halvard_pushes_total{result="superseded"} 1.0' in metrics
    assert 'halvard_reports_dropped_total{reason="superseded"} 1.0' in metrics


async def test_a_webhook_that_is_away_is_a_condition_that_passes_and_all_else_goes_on(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=2)
        pods = [await scene.pod(0), await scene.pod(1)]
        for pod in pods:
            await scene.runs(pod)
        async with webhook_that_is_away(scene, PODS):
            await scene.push(pods[0], 1, 0.5)
            condition = await scene.condition("Degraded", "True", "PodNotCreated")
            assert 'failed calling webhook "pods.example.com"' in condition["message"]
            _, verdict = await scene.push(pods[1], 1, 0.25)
            assert "stop" in verdict
            trials = await scene.trials()
        await scene.pod(2)
        await scene.pod(3)
        await scene.condition("Degraded", "False", "Recovered")
    assert [trial["status"]["state"] for trial in trials[:2]] == ["Paused"] * 2
    assert all(trial.get("status", {}).get("faults", 0) == 0 for trial in trials)


async def test_a_webhook_without_which_no_trial_is_stored_is_a_condition_that_passes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PATIENCE", 0.5)
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        async with webhook_that_is_away(scene, TRIALS, "/status"):
            pushing = asyncio.create_task(scene.push(pod, 1, 0.5))
            condition = await scene.condition("Degraded", "True", "TrialNotStored")
            assert 'failed calling webhook "trials.example.com"' in condition["message"]
        _, verdict = await pushing
        await scene.pod(1)
        await scene.condition("Degraded", "False", "Recovered")
        trials = await scene.trials()
    assert "stop" in verdict
    assert [result["value"] for result in trials[0]["status"]["rungs"]] == [0.5]
    assert len(trials) == 2


@contextlib.asynccontextmanager
async def webhook_that_is_away(scene: Scene, kind: Resource, part: str = "") -> AsyncIterator[None]:
    """Without its answer nothing of the kind is written in the namespace, and nobody listens where it should be."""
    name, written = f"away-from-{scene.namespace}", {"operations": ["CREATE", "UPDATE"]}
    rule = {"apiGroups": [kind.group], "apiVersions": [kind.version], "resources": [kind.plural + part], **written}
    webhook = {
        "name": f"{kind.plural}.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    await scene.kube.create(WEBHOOKS, "", {**WEBHOOK, "metadata": {"name": name}, "webhooks": [webhook]})
    try:
        yield
    finally:
        await scene.kubectl("delete", "validatingwebhookconfiguration", name)

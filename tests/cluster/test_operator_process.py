"""The operator as a process: who leads, restarts, rights, writes, metrics and Events."""

import asyncio
import json
import shutil
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.conftest import install
from cluster.scripted import Scene, eventually
from halvard.kube import EVENTS, LEASES, STUDIES, Kube, Resource
from halvard.operator import Settings, run
from halvard.tls import CaReplaced, load_or_create
from lab.control_plane import ControlPlane


async def test_a_result_that_came_while_the_operator_was_down_counts(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.6)
        pod = await scene.pod(2)
        await scene.runs(pod)
    await scene.ends(pod, report={"step": 1, "metrics": {"loss": 0.1}, "checkpoint": "step-1"})
    async with scene.operator():
        await scene.pod(2, attempt=2)
        trials = await scene.trials()
    assert [trial["spec"]["budget"] for trial in trials] == [1, 1, 3]
    assert [trial["status"]["rungs"][0]["value"] for trial in trials] == [0.5, 0.6, 0.1]


async def test_a_deleted_study_starts_nothing_more_and_its_series_are_gone(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await eventually(lambda: has_series(scene))
        study = await scene.study()
        await scene.kube.delete(STUDIES, scene.namespace, "search", study["metadata"]["uid"])
        await eventually(lambda: has_no_series(scene))
        await scene.runs(pod)
        status, _ = await scene.push(pod, 1, 0.5)
        assert status == 403
        pods = await scene.pods()
    assert [pod["metadata"]["name"] for pod in pods] == ["search-0000-1"]


async def has_series(scene: Scene) -> bool:
    return 'study="search"' in await scene.metrics()


async def has_no_series(scene: Scene) -> bool:
    return not await has_series(scene)


async def test_a_trial_with_three_rungs_costs_at_most_eight_writes(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(limits={"trials": 3})
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.6)
        await scene.leg(2, 0.1)
        await scene.push(await scene.pod(2), 3, 0.05)
        await scene.condition("Complete", "True", "TrialsFinished")
    assert 0 < writes_of(scene, "search-0002") <= 8


def writes_of(scene: Scene, trial: str) -> int:
    """Writes to a trial and its Pods that are in the audit log, but for the kubelet's."""
    entries = map(json.loads, scene.control_plane.audit.read_text().splitlines())
    objects = [e["objectRef"] for e in entries if e["verb"] in {"create", "patch", "update", "delete"}]
    return sum(
        item["namespace"] == scene.namespace
        and item["name"].startswith(trial)
        and (item["resource"], item.get("subresource")) != ("pods", "status")
        for item in objects
        if item["resource"] in {"trials", "pods"}
    )


async def test_the_operator_lets_the_next_one_lead_when_it_is_stopped(scene: Scene) -> None:
    async with scene.operator():
        pass
    async with asyncio.timeout(10), scene.operator():  # a lease that is not released takes 15 s to run out
        assert "halvard_leader 1.0" in await scene.metrics()


async def test_metrics_of_a_running_study_parse(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        await scene.leg(0, 0.5)
        await scene.pod(1)
        await eventually(lambda: counted(scene))
        families = {family.name: family for family in text_string_to_metric_families(await scene.metrics())}
    [lag] = [s for s in families["halvard_report_lag_seconds"].samples if s.name.endswith("_count")]
    assert lag.value == 1
    assert families["halvard_decision_duration_seconds"].samples
    assert {s.labels["code"] for s in families["halvard_api_requests"].samples} >= {"200", "201"}
    assert {s.labels["resource"] for s in families["halvard_watch_age_seconds"].samples} == {
        "studies",
        "trials",
        "pods",
    }


async def counted(scene: Scene) -> bool:
    return (
        'halvard_rung_results_total{namespace="' + scene.namespace + '",rung="1",study="search"} 1.0'
        in await scene.metrics()
    )


async def test_a_process_ends_cleanly_on_sigterm_and_gives_its_lease_back(scene: Scene) -> None:
    code = "from halvard.operator import main; main()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=scene.environment())
    await scene.apply()
    await scene.pod(0)
    process.terminate()
    assert await process.wait() == 0
    lease = await scene.kube.get(LEASES, scene.namespace, "halvard")
    assert lease["spec"]["holderIdentity"] == ""


ENOUGH = {"HALVARD_COLLECTOR_IMAGE": "collector", "HALVARD_COLLECTOR_URL": "https://halvard.svc:8443"}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"HALVARD_COLLECTOR_URL": ""}, "HALVARD_COLLECTOR_URL is not set"),
        ({"HALVARD_COLLECTOR_URL": "foo"}, "HALVARD_COLLECTOR_URL is 'foo'; it has to be such as https://"),
        ({"HALVARD_COLLECTOR_URL": "http://h"}, "HALVARD_COLLECTOR_URL is 'http://h'; it has to be such as https://"),
        ({"HALVARD_COLLECTOR_URL": "https://:8443"}, "HALVARD_COLLECTOR_URL is 'https://:8443'; it has to be"),
        ({"HALVARD_COLLECTOR_URL": "https://h:https"}, "HALVARD_COLLECTOR_URL is 'https://h:https'; it has to be"),
        ({"HALVARD_METRICS_PORT": "http"}, "HALVARD_METRICS_PORT is 'http'; it has to be a port"),
        ({"HALVARD_SERVICE": "halvard"}, "HALVARD_POD_IP is not set: HALVARD_SERVICE is"),
        ({"HALVARD_POD_IP": "10.1.2.3"}, "HALVARD_SERVICE is not set: HALVARD_POD_IP is"),
        ({"HALVARD_SERVICE": "halvard", "HALVARD_POD_IP": "here"}, "HALVARD_POD_IP is 'here'; it has to be an IP"),
        ({"HALVARD_ALLOW": "everything"}, "everything"),
    ],
)
def test_a_process_that_is_told_something_wrong_says_what(told: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings.from_environment({**ENOUGH, **told})


RULES = {
    "Role": [
        {"apiGroups": ["halvard.dev"], "resources": ["studies"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["halvard.dev"], "resources": ["trials"], "verbs": ["get", "list", "watch", "create", "patch"]},
        {"apiGroups": ["halvard.dev"], "resources": ["studies/status", "trials/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "delete"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "create", "update"]},
    ],
    "ClusterRole": [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}],
}


async def grant(scene: Scene) -> Path:
    """Makes a ServiceAccount that has the documented rights and no others; returns its kubeconfig."""
    await scene.kubectl("create", "serviceaccount", "operator")
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": scene.namespace}
    for kind, rules in RULES.items():
        group = Resource("rbac.authorization.k8s.io", "v1", f"{kind.lower()}s")
        bindings = Resource(group.group, group.version, f"{kind.lower()}bindings")
        scope = scene.namespace if kind == "Role" else ""
        common = {"apiVersion": group.api_version, "metadata": {"name": f"operator-of-{scene.namespace}"}}
        await scene.kube.create(group, scope, {**common, "kind": kind, "rules": rules})
        reference = {"apiGroup": group.group, "kind": kind, "name": f"operator-of-{scene.namespace}"}
        binding = {**common, "kind": f"{kind}Binding", "roleRef": reference, "subjects": [account]}
        await scene.kube.create(bindings, scope, binding)
    token = await scene.kubectl("create", "token", "operator")
    kubeconfig = json.loads(scene.control_plane.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    path = scene.directory / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return path


async def test_it_needs_no_more_rights_than_the_documented_ones(scene: Scene) -> None:
    await scene.kubectl("create", "service", "clusterip", "halvard", "--tcp=8443")
    kubeconfig = await grant(scene)
    scene.settings = replace(scene.settings, kubeconfig=kubeconfig, service="halvard", pod_ip="10.1.2.3")
    async with scene.operator():
        await scene.apply(limits={"trials": 3})
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.6)
        await scene.leg(2, 0.1)
        await scene.change(suspend=True)
        await scene.condition("Suspended", "True", "SuspendSet")
        await eventually(lambda: counts(scene, "halvard_api_requests_total", "delete"))
        metrics = await scene.metrics()
    assert 'code="403"' not in metrics
    assert 'resource="events",verb="create"} ' in metrics


async def counts(scene: Scene, name: str, verb: str) -> bool:
    """Whether a counter has a sample for this verb."""
    return any(line.startswith(name) and f'verb="{verb}"' in line for line in (await scene.metrics()).splitlines())


def mount_certificate(scene: Scene) -> None:
    """Makes of the TLS directory what a Secret without the CA's key is."""
    load_or_create(scene.directory, ["127.0.0.1"])
    (scene.directory / "ca.key").rename(scene.directory / "kept.key")
    scene.settings = replace(scene.settings, certificate_period=0.1)


async def test_a_renewed_certificate_is_served_without_a_restart(scene: Scene) -> None:
    mount_certificate(scene)
    made = scene.directory / "renewed"
    made.mkdir()
    for name, kept in (("ca.crt", "ca.crt"), ("ca.key", "kept.key")):
        shutil.copy(scene.directory / kept, made / name)
    load_or_create(made, ["127.0.0.1"])
    async with scene.operator():
        await scene.apply()
        assert await scene.leg(0, 0.5)
        for name in ("tls.crt", "tls.key"):
            (made / name).rename(scene.directory / name)
        renewed = (scene.directory / "tls.crt").read_text()
        await eventually(lambda: serves(scene, renewed))
        assert await scene.leg(1, 0.6)
        assert (await scene.metrics()).count("halvard_leader 1.0") == 1


async def serves(scene: Scene, certificate: str) -> bool:
    address = ("127.0.0.1", scene.settings.collector_port)
    return await asyncio.to_thread(ssl.get_server_certificate, address) == certificate


async def test_where_there_is_another_ca_the_operator_ends_to_be_started_anew(scene: Scene) -> None:
    mount_certificate(scene)
    running = asyncio.create_task(run(scene.settings))
    await eventually(lambda: scene.says("leading"))
    load_or_create(scene.directory / "other", ["127.0.0.1"])
    for name in ("tls.key", "tls.crt", "ca.crt"):
        (scene.directory / "other" / name).rename(scene.directory / name)
    with pytest.raises(CaReplaced):
        await asyncio.wait_for(running, 60)
    lease = await scene.kube.get(LEASES, scene.namespace, "halvard")
    assert lease["spec"]["holderIdentity"] == ""


async def test_people_are_told_by_events(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.ends(pod, code=1)
        await scene.trial_in(0, "Failed")
        await scene.pod(1)
    study = await scene.study()
    events = [item async for page in scene.kube.pages(EVENTS, scene.namespace) for item in page.items]
    assert {event["regarding"]["uid"] for event in events} == {study["metadata"]["uid"]}
    assert {(event["type"], event["reason"]) for event in events} == {("Normal", "Started"), ("Warning", "TrialFailed")}


async def test_a_restart_of_the_api_server_costs_nothing(tmp_path: Path) -> None:
    with ControlPlane() as control_plane:
        install(control_plane)
        control_plane.kubectl("create", "namespace", "alone")
        control_plane.kubectl("create", "serviceaccount", "default", "-n", "alone")
        kube = await Kube.connect(control_plane.kubeconfig)
        scene = Scene(control_plane, "alone", kube, tmp_path)
        async with scene.operator():
            await scene.apply()
            await scene.leg(0, 0.5)
            await scene.leg(1, 0.6)
            pod = await scene.pod(2)
            token = await scene.token(pod)
            restarted = asyncio.get_running_loop().run_in_executor(None, restart, control_plane)
            assert await scene.push(pod, 1, 0.1, token) == (200, {"budget": 3, "stored": 1})
            await restarted
            trials = await scene.trials()
        await kube.close()
    assert [trial["spec"]["budget"] for trial in trials] == [1, 1, 3]


def restart(control_plane: ControlPlane) -> None:
    """Kills the API server and starts it again; clients see refused connections meanwhile."""
    assert control_plane.apiserver is not None
    control_plane.apiserver.kill()
    control_plane.stop_apiserver()
    control_plane.start_apiserver()

"""`halvard check` against a real API server: what it runs, and what it says of a cluster that is not well."""

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from cluster.scripted import Scene, eventually
from halvard.allowed import refusal
from halvard.check import CheckFailed, check, study
from halvard.cli import main
from halvard.kube import Kube, Manifest, Refused, Resource
from halvard.study import Study
from lab.control_plane import ControlPlane


def run(control_plane: ControlPlane, namespace: str, *options: str) -> Result:
    kubeconfig = f"--kubeconfig={control_plane.kubeconfig}"
    arguments = ["check", f"--namespace={namespace}", "--image=collector", kubeconfig, *options]
    return CliRunner().invoke(main, arguments)


async def pod(scene: Scene, ending: str) -> Manifest:
    """Waits for the Pod whose name ends so."""

    async def look() -> Manifest | None:
        return next((pod for pod in await scene.pods() if pod["metadata"]["name"].endswith(ending)), None)

    return await eventually(look)


async def leg(scene: Scene, ending: str, steps: int, loss: float) -> None:
    """Runs a Pod that reports these steps."""
    found = await pod(scene, ending)
    await scene.runs(found)
    for step in range(1, steps + 1):
        await scene.push(found, step, loss)
    await scene.ends(found)


def test_the_study_needs_no_gpu_and_is_allowed_under_the_restricted_standard(
    control_plane: ControlPlane, namespace: str
) -> None:
    manifest = study("check-1", "collector", ["registry"])
    template = Study.from_manifest(manifest).spec.template
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")

    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
    for what in (manifest, pod):
        control_plane.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", input=json.dumps(what))

    assert refusal(template) is None
    assert "gpu" not in json.dumps(template)


def test_its_pods_pull_with_the_secrets_that_it_is_given(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Manifest] = []

    async def create(_kube: Kube, _resource: Resource, _namespace: str, manifest: Manifest) -> Manifest:
        asked.append(manifest)
        raise Refused("seen")

    monkeypatch.setattr(Kube, "create", create)
    run(control_plane, namespace, "--pull-secret=a", "--pull-secret=b")
    assert asked[0]["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


async def test_it_sees_both_trials_through_and_leaves_nothing(scene: Scene) -> None:
    said: list[str] = []
    async with scene.operator():
        checking = asyncio.create_task(check(scene.settings.kubeconfig, scene.namespace, "collector", 60, said.append))
        await leg(scene, "-0000-1", 1, 2.0)
        await leg(scene, "-0001-1", 2, 1.0)
        await checking
    assert said[0].startswith(f"study {scene.namespace}/check-")
    assert said[-1] == "both trials trained, and the better one was promoted in its own Pod"
    assert await scene.kubectl("get", "studies", "-oname") == ""


async def test_reports_that_come_by_the_kubelet_alone_are_not_good_enough(scene: Scene) -> None:
    async with scene.operator():
        checking = asyncio.create_task(
            check(scene.settings.kubeconfig, scene.namespace, "collector", 60, lambda _: None)
        )
        for ending, step, loss in (("-0000-1", 1, 2.0), ("-0001-1", 1, 1.0), ("-0001-2", 2, 1.0)):
            found = await pod(scene, ending)
            await scene.runs(found)
            await scene.ends(found, report={"step": step, "metrics": {"loss": loss}})
        with pytest.raises(CheckFailed, match="not in its own Pod: its reports came by the kubelet"):
            await checking


def test_without_an_operator_it_fails_in_time_and_leaves_nothing(control_plane: ControlPlane, namespace: str) -> None:
    done = run(control_plane, namespace, "--timeout=1s")
    assert done.exit_code == 1
    assert "after 1 s it is not complete: waiting for an operator that serves this namespace" in done.output
    assert control_plane.kubectl("get", "studies", "-n", namespace, "-oname").stdout == ""


def test_what_the_api_server_refuses_is_said_in_its_words(control_plane: ControlPlane) -> None:
    done = run(control_plane, "nowhere")
    assert (done.exit_code, done.output) == (1, 'Error: the API server said: namespaces "nowhere" not found\n')


@pytest.mark.parametrize("text", ["", "0s", "2", "soon", "1h", "-1s"])
def test_a_timeout_that_is_none_is_refused(text: str, control_plane: ControlPlane) -> None:
    done = run(control_plane, "default", f"--timeout={text}")
    assert done.exit_code == 2
    assert f'"{text}" is no duration such as 90s or 1m30s' in done.output

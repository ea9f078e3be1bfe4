"""What is built is accepted by a real API server, to the letter and under the restricted Pod Security Standard."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from halvard.kube import PODS, Kube, Refused
from halvard.observe import observe
from halvard.plan import StartLeg
from halvard.pods import PodSettings, build
from halvard.study import Study
from halvard.trial import SavedCheckpoint, Trial
from lab.control_plane import ControlPlane

SETTINGS = PodSettings(collector_image="halvard-trainer:1", collector_url="https://halvard:8443", collector_ca="PEM")
STUDY = """
name: digits
uid: 11112222-3333-4444-5555-666677778888
spec:
  objective: {metric: val_loss, goal: minimize}
  parameters: [{name: lr, float: {min: 0.001, max: 0.1}}]
  scheduler: {asha: {maxBudget: 27}}
  limits: {trials: 40}
  checkpoint: {persistentVolumeClaim: {claimName: checkpoints}}
  collector: {stdout: {pattern: 'loss=(?P<val_loss>\\S+)'}}
  template:
    spec:
      containers:
        - name: trainer
          image: digits:1
          command: [python, train.py, --lr=$(HALVARD_PARAM_LR)]
          resources: {limits: {nvidia.com/gpu: 1}}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
            runAsNonRoot: true
            runAsUser: 1000
            seccompProfile: {type: RuntimeDefault}
"""
TRIAL: dict[str, Any] = {
    "name": "digits-0003",
    "uid": "aaaa",
    "spec": {"index": 3, "budget": 9, "parameters": {"lr": 0.01}},
}


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    connected = await Kube.connect(control_plane.kubeconfig)
    yield connected
    await connected.close()


@pytest.fixture
def restricted(control_plane: ControlPlane, namespace: str) -> str:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


def pod_of(study: dict[str, Any], namespace: str) -> dict[str, Any]:
    trial = Trial.model_validate({**TRIAL, "status": {"attempt": 2}})
    leg = StartLeg(trial, SavedCheckpoint(name="step-3", step=3, attempt=1), avoid=("node-2", "node-3"))
    return build(Study.model_validate({**study, "namespace": namespace}), trial, leg, SETTINGS, "node-1")


async def test_everything_that_is_added_is_accepted_in_a_restricted_namespace(kube: Kube, restricted: str) -> None:
    stored = await kube.create(PODS, restricted, pod_of(yaml.safe_load(STUDY), restricted))
    view = observe(stored)
    assert (view.name, view.study, view.trial, view.attempt) == ("digits-0003-2", "digits", "digits-0003", 2)
    assert view.uid == stored["metadata"]["uid"]


async def test_the_server_keeps_all_that_was_built(kube: Kube, restricted: str) -> None:
    built = pod_of(yaml.safe_load(STUDY), restricted)
    stored = await kube.create(PODS, restricted, built)
    assert missing(built, stored) == []


async def test_an_affinity_of_the_users_own_is_kept_beside_the_nodes_to_avoid(kube: Kube, namespace: str) -> None:
    study = yaml.safe_load(STUDY)
    terms = [{"matchExpressions": [{"key": f"zone-{n}", "operator": "Exists"}]} for n in range(2)]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    study["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": required}
    built = pod_of(study, namespace)
    stored = await kube.create(PODS, namespace, built)
    assert missing(built, stored) == []
    assert str(stored["spec"]["affinity"]).count("node-3") == 2


async def test_under_restriction_only_the_users_own_container_is_found_fault_with(kube: Kube, restricted: str) -> None:
    study = yaml.safe_load(STUDY)
    del study["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    with pytest.raises(Refused, match="violates PodSecurity") as refused:
        await kube.create(PODS, restricted, pod_of(study, restricted))
    assert "trainer" in str(refused.value)
    assert "halvard-collector" not in str(refused.value)


async def test_a_quota_that_wants_requests_and_limits_takes_what_is_added(
    kube: Kube, control_plane: ControlPlane, namespace: str
) -> None:
    hard = "requests.cpu=2,limits.cpu=2,requests.memory=2Gi,limits.memory=2Gi"
    control_plane.kubectl("create", "quota", "all", f"--hard={hard}", "-n", namespace)
    study = yaml.safe_load(STUDY)
    study["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}
    stored = await kube.create(PODS, namespace, pod_of(study, namespace))
    assert stored["metadata"]["name"] == "digits-0003-2"


async def test_a_field_the_template_should_not_have_is_named(kube: Kube, namespace: str) -> None:
    study = yaml.safe_load(STUDY)
    study["spec"]["template"]["spec"]["contianers"] = []
    with pytest.raises(Refused, match=r'unknown field "spec\.contianers"'):
        await kube.create(PODS, namespace, pod_of(study, namespace))


def missing(built: Any, stored: Any, path: str = "") -> list[str]:
    """What was built and is not in what is stored (which has defaults besides)."""
    if isinstance(built, dict):
        return [line for key, value in built.items() for line in missing(value, stored.get(key), f"{path}.{key}")]
    if isinstance(built, list):
        pairs = zip(built, stored, strict=False)
        return [line for number, (a, b) in enumerate(pairs) for line in missing(a, b, f"{path}[{number}]")]
    return [] if str(built) == str(stored) else [f"{path}: {built!r} became {stored!r}"]

"""`helm test` where it fails, on a real API server without nodes: what stays, and what does not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from lab.helm import CHART, Helm, HelmError


@pytest.fixture
def helm(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Helm]:
    """A Helm with a release in that namespace, whose Pods get no node."""
    helm = Helm(control_plane.kubeconfig, tmp_path)
    helm.run("install", "halvard", str(CHART), f"--namespace={namespace}", "--set=crds.enabled=false")
    yield helm
    helm.run("uninstall", "halvard", f"--namespace={namespace}")


def test_a_failed_helm_test_leaves_its_pod_and_no_rights(
    helm: Helm, control_plane: ControlPlane, namespace: str
) -> None:
    with pytest.raises(HelmError, match="timed out"):
        helm.run("test", "halvard", f"--namespace={namespace}", "--timeout=2s")
    kinds = "pods,serviceaccounts,roles,rolebindings"
    found = json.loads(control_plane.kubectl("get", kinds, "-n", namespace, "--output=json").stdout)
    names = [f"{item['kind']}/{item['metadata']['name']}" for item in found["items"]]
    assert [name for name in names if name.endswith("-check")] == ["Pod/halvard-check"]

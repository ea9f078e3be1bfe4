"""A real API server for the tests of this directory. Ask for these fixtures by name:

* `control_plane`: a `lab.control_plane.ControlPlane` with Halvard's custom resources, one for the whole test run.
  `.kubeconfig` is a path for any client; `.kubectl("get", "pods", "-n", namespace).stdout` runs kubectl (`input=` is
  its stdin, `check=False` to look at a refusal); `.audit` is the audit log, one JSON object a line.
  A test that stops the API server must start a `ControlPlane()` of its own.
* `namespace`: the name of a fresh namespace with a `default` ServiceAccount, for this test alone.
* `scene`: a `cluster.scripted.Scene`, which runs the operator for that namespace and plays its kubelet and sidecars.
  After the test the history checker looks at all that happened there (`history.after`). Where a test breaks rules by
  hand it says so: `@pytest.mark.unsound("orders", reason="a Trial is deleted")`.
"""

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.scripted import PRECISION, Scene
from halvard.kube import Kube
from history.after import assert_all_sound, excused
from lab.audit import Log
from lab.binaries import binary
from lab.control_plane import ControlPlane

CRDS = Path(__file__).parents[2] / "crds"
numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # building takes minutes: show its progress
        for name in ("etcd", "kube-apiserver", "kubectl"):
            binary(name)
    with ControlPlane() as running:
        install(running)
        yield running


def install(control_plane: ControlPlane) -> None:
    """Applies Halvard's custom resource definitions and waits until they are served and explained."""
    control_plane.kubectl("apply", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS))
    deadline = time.monotonic() + 60  # what `kubectl explain` reads is published a little later
    while control_plane.kubectl("explain", "study", check=False).returncode and time.monotonic() < deadline:
        time.sleep(0.2)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    name = f"test-{next(numbers)}"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("create", "serviceaccount", "default", "-n", name)
    return name


@pytest.fixture
async def scene(
    request: pytest.FixtureRequest, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> AsyncIterator[Scene]:
    log, kube = Log(control_plane.audit), await Kube.connect(control_plane.kubeconfig)
    try:
        made = Scene(control_plane, namespace, kube, tmp_path)
        yield made
        stored = await made.trials()
    finally:
        await kube.close()
    assert_all_sound(
        *(log, namespace, stored, excused(request.node)),
        sent=tuple(made.sent),
        scraped=made.scraped,
        said=made.said,
        precision=PRECISION,
    )

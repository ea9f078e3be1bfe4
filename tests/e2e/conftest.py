"""A whole cluster for the tests of this directory. Ask for these fixtures by name:

* `cluster`: the lab's (`lab.cluster.Cluster`), or with `E2E_CLUSTER=existing` your own (`lab.existing.Existing`).
* `lab`: the lab's, for tests that stop kubelets, restart the API server, read the audit log or look into a volume;
  a test that asks for it is skipped on an existing cluster.
* `operator`: `halvard operator` (`lab.operator_process`), leading, for the namespace of the test; custom resources are
  installed. Its log is shown where the test fails.
* `namespace`: the name of a fresh namespace under the restricted Pod Security Standard, for this test alone.
* `studies`: the Studies of that namespace, by kubectl, with the operator (`e2e.studies`). After the test the history
  checker looks at all that happened there (`history.after`), on the lab's cluster.
* `shared`, `shared_namespace`, `shared_operator`: the same, for all tests of a module.
* `no_custom_resources`: the lab's cluster without them, for all tests of a module.
* `release`: the operator installed by Helm with two replicas (`e2e.release`), for all tests of a module; `served`: the
  Studies of a namespace that it serves.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.checked import checked
from e2e.namespaces import fresh_namespace
from e2e.release import Release
from e2e.studies import Studies, shown
from history.after import excused
from lab.cluster import Cluster, only_one
from lab.existing import Existing
from lab.helm import Helm
from lab.operator_process import OperatorProcess

MANIFESTS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster | Existing]:
    if os.environ.get("E2E_CLUSTER") == "existing":
        yield Existing()
        return
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    made = Cluster()
    with only_one():
        with capture.global_and_fixture_disabled():  # it may take minutes the first time: show progress
            made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def custom_resources(cluster: Cluster | Existing) -> None:
    apply_custom_resources(cluster)


def apply_custom_resources(cluster: Cluster | Existing) -> None:
    cluster.kubectl("apply", "-f", str(MANIFESTS))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(MANIFESTS))


@pytest.fixture(scope="module")
def no_custom_resources(lab: Cluster) -> Iterator[Cluster]:
    lab.kubectl("delete", "-f", str(MANIFESTS), "--ignore-not-found", "--timeout=60s")
    try:
        yield lab
    finally:
        apply_custom_resources(lab)


@pytest.fixture
def operator(
    cluster: Cluster | Existing, custom_resources: None, namespace: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    with running_operator(cluster, namespace, tmp_path) as running:
        yield running


@contextlib.contextmanager
def running_operator(cluster: Cluster | Existing, namespace: str, directory: Path) -> Iterator[OperatorProcess]:
    image, kubeconfig = cluster.collector_image, cluster.operator_kubeconfig
    running = OperatorProcess(kubeconfig, cluster.address, namespace, image, directory)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        print(running.log.read_text())


@pytest.fixture(scope="session")
def lab(cluster: Cluster | Existing) -> Cluster:
    if isinstance(cluster, Existing):
        pytest.skip("needs the lab's own cluster; this run uses an existing one")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster | Existing) -> Iterator[str]:
    with fresh_namespace(cluster) as name:
        yield name


@pytest.fixture
def studies(
    request: pytest.FixtureRequest, cluster: Cluster | Existing, namespace: str, operator: OperatorProcess
) -> Iterator[Studies]:
    with checked(Studies(cluster, namespace, operator), excused(request.node)) as made:
        yield made


@pytest.fixture(scope="module")
def shared_namespace(cluster: Cluster | Existing) -> Iterator[str]:
    with fresh_namespace(cluster) as name:
        yield name


@pytest.fixture(scope="module")
def shared_operator(
    cluster: Cluster | Existing,
    custom_resources: None,
    shared_namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    with running_operator(cluster, shared_namespace, tmp_path_factory.mktemp("operator")) as running:
        yield running


@pytest.fixture(scope="module")
def shared(cluster: Cluster | Existing, shared_namespace: str, shared_operator: OperatorProcess) -> Iterator[Studies]:
    with checked(Studies(cluster, shared_namespace, shared_operator)) as made:
        yield made


@pytest.fixture(scope="session")
def helm(lab: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(lab.kubeconfig, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def release(lab: Cluster, helm: Helm, custom_resources: None) -> Iterator[Release]:
    with fresh_namespace(lab) as namespace:
        installed = Release(lab, helm, namespace)
        try:
            installed.install("--set=crds.enabled=false", "--set=replicas=2")
            yield installed
        finally:
            print(installed.kubectl("get", "events"), installed.logs())
            installed.uninstall()


@pytest.fixture(scope="module")
def served(lab: Cluster, release: Release, shared_namespace: str) -> Iterator[Studies]:
    with checked(Studies(lab, shared_namespace, release)) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, text in shown.items():
        terminalreporter.section(title)
        terminalreporter.write(text)

"""The life of a release with a Study running: installed, upgraded, rolled back, uninstalled, two at once."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.checked import checked
from e2e.namespaces import fresh_namespace
from e2e.release import Release
from e2e.searches import TRAINER, random_search, run_here
from e2e.studies import Studies, python, results, show, study, template
from history import Rule
from lab.cluster import Cluster
from lab.control_plane import ControlPlaneError
from lab.helm import CHART, Helm

EARLIER = "0.0.9"
TWO_LEASES: tuple[Rule, ...] = ("leading",)  # this rule knows of one


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A chart of before: another version, and a custom resource that lacks a column of today's."""
    chart = tmp_path_factory.mktemp("earlier") / "halvard"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": EARLIER}))
    path = chart / "files" / "crds" / "study.yaml"
    resource = yaml.safe_load(path.read_text())
    version = resource["spec"]["versions"][0]
    version["additionalPrinterColumns"] = [c for c in version["additionalPrinterColumns"] if c["name"] != "GPU-Hours"]
    path.write_text(yaml.safe_dump(resource))
    return str(chart)


@pytest.fixture
def namespace(lab: Cluster) -> Iterator[str]:
    with fresh_namespace(lab) as name:
        yield name


@pytest.fixture
def release(no_custom_resources: Cluster, helm: Helm) -> Iterator[Release]:
    """A release that is not installed yet, where there are no custom resources."""
    with fresh_namespace(no_custom_resources) as home:
        made = Release(no_custom_resources, helm, home)
        yield made
        made.uninstall()
        no_custom_resources.kubectl(
            "delete", "crd", "studies.halvard.dev", "trials.halvard.dev", "--ignore-not-found", "--timeout=60s"
        )


def columns(lab: Cluster) -> list[str]:
    """The columns of `kubectl get studies`, as the API server has them."""
    resource = json.loads(lab.kubectl("get", "crd", "studies.halvard.dev", "--output=json").stdout)
    return [column["name"] for column in resource["spec"]["versions"][0]["additionalPrinterColumns"]]


def versions(release: Release) -> str:
    """The chart that is installed, as `helm list` names it."""
    listed = json.loads(release.helm.run("list", "--namespace", release.namespace, "--output", "json"))
    return str(listed[0]["chart"])


def test_studies_run_on_while_the_release_is_upgraded_rolled_back_and_installed_again(
    release: Release, lab: Cluster, namespace: str, earlier: str, tmp_path: Path
) -> None:
    said = release.install(chart=earlier)
    show("helm install", said + release.kubectl("get", "all"))
    assert (versions(release), "GPU-Hours" in columns(lab)) == (f"halvard-{EARLIER}", False)
    with checked(Studies(lab, namespace, release)) as studies:
        studies.apply(random_search(lab, pace=2))
        studies.wait("pod/search-0001-1", "condition=PodScheduled")
        before = release.leader()
        release.upgrade("--set=podAnnotations.upgraded=yes")
        assert (versions(release), "GPU-Hours" in columns(lab)) == ("halvard-0.1.0", True)
        assert release.leader() != before
        studies.wait("pod/search-0003-1", "condition=PodScheduled")
        release.rollback()
        assert (versions(release), "GPU-Hours" in columns(lab)) == (f"halvard-{EARLIER}", False)
        studies.wait("pod/search-0004-1", "condition=PodScheduled")
        release.uninstall()
        left = release.kubectl("get", "all,leases,endpointslices,configmaps,serviceaccounts", "--output=name").split()
        assert set(left) <= {
            "configmap/kube-root-ca.crt",
            "serviceaccount/default",
            f"lease.coordination.k8s.io/{release.name}",
        }
        assert studies.get("study", "search")["status"]["state"] == "Running"
        release.install()
        here = run_here(random_search(lab), tmp_path)
        studies.wait_complete()
        there = studies.every("trials")
        assert results(there) == results(here)
        assert [trial["status"]["faults"] for trial in there] == [0] * len(there)
        show("after an upgrade, a rollback and a reinstallation", studies.kubectl("get", "studies,trials"))


def test_without_keep_the_custom_resources_and_all_studies_go_with_the_release(
    release: Release, lab: Cluster, namespace: str
) -> None:
    release.install("--set=crds.keep=false")
    studies = Studies(lab, namespace, release)
    studies.apply(study(template(lab, ["sleep", "1000"]), ["a", "b"], parallelism=2))
    studies.wait("pod/search-0001-1", "condition=PodScheduled")
    release.uninstall()
    lab.kubectl("wait", "--for=delete", "crd/studies.halvard.dev", "crd/trials.halvard.dev", "--timeout=60s")
    studies.kubectl("wait", "--for=delete", "pods", "--all", "--timeout=60s")
    assert studies.every("pods") == []
    with pytest.raises(ControlPlaneError, match=r"NotFound|resource type"):
        studies.every("studies")


def test_two_releases_serve_a_namespace_each(release: Release, helm: Helm, lab: Cluster, namespace: str) -> None:
    with fresh_namespace(lab) as other_home, fresh_namespace(lab) as other_namespace:
        other = Release(lab, helm, other_home)
        release.install(f"--set=namespaces[0]={namespace}")
        other.install(f"--set=namespaces[0]={other_namespace}", "--set=crds.enabled=false")
        with (
            checked(Studies(lab, namespace, release), TWO_LEASES) as ours,
            checked(Studies(lab, other_namespace, other), TWO_LEASES) as theirs,
        ):
            for studies in (ours, theirs):
                studies.apply(study(template(lab, python(TRAINER)), [0.1, 0.2]))
            for studies, stranger in ((ours, theirs), (theirs, ours)):
                studies.wait_complete()
                assert studies.metric("halvard_trials", namespace=studies.namespace) == 2
                assert studies.metric("halvard_trials", namespace=stranger.namespace) == 0
        other.uninstall()

"""A Study that is deleted while it runs, by itself or with its namespace, takes all its own along, and stays gone."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.checked import checked
from e2e.searches import TRAINER
from e2e.studies import Studies, eventually, python, study, template
from lab.audit import WRITES, Log
from lab.cluster import OPERATOR, Cluster
from lab.operator_process import OperatorProcess

QUIET = 12.0  # seconds: longer than it takes until an operator that has begun to lead lists everything once more


@pytest.fixture
def doomed(lab: Cluster, custom_resources: None, namespace: str, tmp_path: Path) -> Iterator[Studies]:
    """Studies of a namespace that is to be deleted, with an operator that serves `namespace` as well."""
    name = f"{namespace}-doomed"
    lab.kubectl("create", "namespace", name)
    lab.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    lab.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=60s")
    serving = OperatorProcess(lab.operator_kubeconfig, lab.address, namespace, lab.collector_image, tmp_path)
    serving.settings["HALVARD_NAMESPACES"] = f"{namespace},{name}"
    try:
        serving.start()
        yield Studies(lab, name, serving)
    finally:
        serving.stop()
        print(serving.log.read_text())
        lab.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def begin(studies: Studies) -> None:
    """Starts a Study of which two trials run for long, and two are still to come."""
    trainer = template(studies.cluster, python(TRAINER), env=[{"name": "PACE", "value": "1"}])
    studies.apply(study(trainer, [0.1, 0.2, 0.3, 0.4], parallelism=2, scheduler={"none": {"budget": 600}}))
    for index in range(2):
        studies.wait(f"trial/search-{index:04d}", "jsonpath={.status.state}=Running")
    assert not is_forgotten(studies)


def goes_on(studies: Studies) -> None:
    """Another Study runs to its end."""
    another = study(template(studies.cluster, python(TRAINER)), [0.1])
    studies.apply({**another, "metadata": {"name": "another"}})
    studies.wait_complete("another")


def is_forgotten(studies: Studies) -> bool:
    """Whether the operator measures nothing any more of the Study `search` there."""
    families = text_string_to_metric_families(studies.operator.metrics())
    studied = {(s.labels.get("namespace"), s.labels.get("study")) for family in families for s in family.samples}
    return (studies.namespace, "search") not in studied


def stays_silent(lab: Cluster, namespace: str) -> None:
    """Looks for a while whether the operator tries to write anything there, taken or refused; its Lease is no word."""
    log, found = Log(lab.audit), []
    time.sleep(QUIET)
    for line in log.lines():
        request = json.loads(line) if line.endswith("\n") else {}
        target = request.get("objectRef", {})
        by_it = request.get("user", {}).get("username") == OPERATOR and request["verb"] in WRITES
        if by_it and target.get("namespace") == namespace and target["resource"] != "leases":
            found.append((request["verb"], target["resource"], target.get("name")))
    assert found == []


@pytest.mark.parametrize("meanwhile", ["leads", "is down"])
def test_a_study_deleted_while_it_runs_is_gone_with_its_trials_and_pods(
    studies: Studies, operator: OperatorProcess, lab: Cluster, meanwhile: str
) -> None:
    begin(studies)
    if meanwhile == "is down":
        operator.stop()
    studies.kubectl("delete", "study", "search", "--timeout=60s")
    eventually(lambda: not studies.every("trials") and not studies.every("pods"))
    if meanwhile == "is down":
        operator.start()
    eventually(lambda: is_forgotten(studies))
    stays_silent(lab, studies.namespace)
    assert [studies.every(kind) for kind in ("studies", "trials", "pods")] == [[], [], []]
    goes_on(studies)


def test_a_namespace_deleted_while_its_study_runs_is_gone_and_another_one_is_served_on(
    doomed: Studies, lab: Cluster, namespace: str
) -> None:
    begin(doomed)
    lab.kubectl("delete", "namespace", doomed.namespace, "--timeout=120s")
    eventually(lambda: is_forgotten(doomed))
    stays_silent(lab, doomed.namespace)
    with checked(Studies(lab, namespace, doomed.operator)) as others:
        goes_on(others)

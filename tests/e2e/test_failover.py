"""The leader is killed, or a node is lost, while trials run: nothing is lost, nothing runs twice, decisions stay."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.checked import checked
from e2e.release import Release
from e2e.searches import CHECKPOINTS, random_search, run_here
from e2e.studies import Manifest, Studies, eventually, python, results, show, study, template
from lab.audit import writes
from lab.cluster import Cluster

# After its second step an attempt that began from nothing waits for a word; one that was resumed trains on.
PATIENT = """
import os, time
from halvard_trainer import Trial

trial = Trial.from_environment()
for step in trial.steps():
    trial.report(loss=trial.parameters["x"] / step, checkpoint=lambda path: path.write_text(str(step)))
    print("step", step, "from", trial.start, flush=True)
    while step == 2 and trial.start == 0 and not os.path.exists("/halvard/go"):
        time.sleep(0.1)
"""


def keep_killing(release: Release, pod: str) -> bool:
    """Kills the operator of this Pod whenever the kubelet has started it anew; whether another Pod leads by now."""
    release.kill(pod)
    return str(release.lease()["holderIdentity"]) not in ("", pod)


def moment(lease: Manifest, name: str) -> datetime:
    """A time of a Lease."""
    return datetime.fromisoformat(lease[name])


@pytest.fixture
def studies(lab: Cluster, namespace: str, release: Release) -> Iterator[Studies]:
    with checked(Studies(lab, namespace, release)) as made:
        yield made


@pytest.fixture
def search(lab: Cluster, studies: Studies) -> Manifest:
    """A Study that is under way."""
    manifest = random_search(lab)
    studies.apply(manifest)
    studies.wait("pod/search-0002-1", "condition=PodScheduled")
    return manifest


def check_undisturbed(studies: Studies, lab: Cluster, search: Manifest, folder: Path) -> None:
    """The Study is what one machine makes of it; no Pod was made twice, no leg ran again."""
    here = run_here(search, folder)
    studies.wait_complete()
    there = studies.every("trials")
    assert results(there) == results(here)
    assert [trial["spec"] for trial in there] == [trial["spec"] for trial in here]
    assert [trial["status"]["faults"] for trial in there] == [0] * len(there)
    made = [w.name for w in writes(lab.audit, studies.namespace) if (w.verb, w.resource) == ("create", "pods")]
    assert len(made) == len(set(made))


def test_a_leader_that_is_killed_goes_on_in_its_pod(
    release: Release, studies: Studies, lab: Cluster, search: Manifest, tmp_path: Path
) -> None:
    leader = release.leader()
    assert release.kill(leader)
    check_undisturbed(studies, lab, search, tmp_path)
    assert release.leader() == leader


def test_the_other_replica_goes_on_when_the_leader_is_lost(
    release: Release, studies: Studies, lab: Cluster, search: Manifest, tmp_path: Path
) -> None:
    leader, before = release.leader(), release.lease()
    eventually(lambda: keep_killing(release, leader))
    assert release.leader() != leader
    after = release.lease()
    check_undisturbed(studies, lab, search, tmp_path)
    silent = (moment(after, "acquireTime") - moment(before, "renewTime")).total_seconds()
    faults = sum(trial["status"]["faults"] for trial in studies.every("trials"))
    show("fail-over", f"without a leader for {silent:.1f} s; {faults} legs ran again\n")


def test_a_leader_that_is_asked_to_go_is_followed_at_once(release: Release) -> None:
    leader, before = release.leader(), release.lease()
    release.kubectl("delete", "pod", leader)
    assert release.leader() != leader
    after = release.lease()
    silent = (moment(after, "acquireTime") - moment(before, "renewTime")).total_seconds()
    show("fail-over of a leader that was asked to go", f"without a leader for less than {silent:.1f} s\n")
    assert after["leaseTransitions"] > before["leaseTransitions"]


def test_trials_of_a_lost_node_go_on_elsewhere_from_their_checkpoints(studies: Studies, lab: Cluster) -> None:
    lab.claim(studies.namespace, "checkpoints")
    trainer = template(lab, python(PATIENT))
    gone = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    trainer["spec"]["tolerations"] = [
        {"key": f"node.kubernetes.io/{state}", **gone} for state in ("unreachable", "not-ready")
    ]
    ladder = {"asha": {"minBudget": 3, "maxBudget": 9, "reductionFactor": 3}}
    studies.apply(study(trainer, [0.5], scheduler=ladder, checkpoint=CHECKPOINTS))
    studies.wait("trial/search-0000", "jsonpath={.status.checkpoint.name}=step-2")
    node = studies.get("pod", "search-0000-1")["spec"]["nodeName"]
    lab.stop_kubelet(node)
    try:
        studies.wait_complete()
        trial, second = studies.trial(0), studies.get("pod", "search-0000-2")
        first: dict[str, Any] = studies.get("pod", "search-0000-1")
    finally:
        lab.continue_kubelet(node)
        lab.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s")
    assert second["spec"]["nodeName"] != node
    assert "deletionTimestamp" in first["metadata"]  # and so it stays until its node is back
    studies.wait("pod/search-0000-2", "jsonpath={.status.phase}=Succeeded")  # its sidecar is faster than its kubelet
    assert "step 3 from 2" in studies.logs("search-0000-2")
    assert [(rung["budget"], rung["attempt"], rung["step"]) for rung in trial["status"]["rungs"]] == [(3, 2, 3)]
    assert (trial["status"]["faults"], studies.study()["trials"]["failed"]) == (1, 0)

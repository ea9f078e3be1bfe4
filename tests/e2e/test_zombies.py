"""A Pod that nobody believes any more runs on, reports and saves checkpoints: nothing comes of it; it is counted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.searches import CHECKPOINTS
from e2e.studies import Manifest, Studies, eventually, python, study, template
from lab.cluster import Cluster
from lab.operator_process import OperatorProcess

# Heeds no verdict, no budget and no SIGTERM. After two steps it waits for a word: how far to train, and what to call
# its loss. Otherwise it is as any trainer is: its library removes the checkpoints that it takes for old.
ZOMBIE = """
import json, os, signal, time
from halvard_trainer import Trial

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ["HALVARD_VERDICT"] += ".unheard"
os.environ["HALVARD_BUDGET"] = "1000000"
trial = Trial.from_environment()
print("from", trial.resume_from, trial.start, flush=True)
word = trial.checkpoint_dir / "word"
until, loss = trial.start + 2, 1.0
for step in trial.steps():
    trial.report(loss=loss, checkpoint=lambda path: path.write_text(os.environ["HALVARD_POD"]))
    while step == trial.start + 2 and not word.exists():
        time.sleep(0.1)
    if word.exists():
        until, loss = json.loads(word.read_text())
    if step >= until:
        break
    time.sleep(0.1)
"""
BUDGET = 8
SOON = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}


def search(cluster: Cluster) -> Manifest:
    """A Study of one trial with one rung."""
    trainer = template(cluster, python(ZOMBIE))
    trainer["spec"]["tolerations"] = [
        {"key": f"node.kubernetes.io/{state}", **SOON} for state in ("unreachable", "not-ready")
    ]
    return study(trainer, [0.5], scheduler={"none": {"budget": BUDGET}}, checkpoint=CHECKPOINTS)


@pytest.fixture
def volume(lab: Cluster, studies: Studies) -> Path:
    """The directory behind the claim for checkpoints."""
    return lab.claim(studies.namespace, "checkpoints")


@pytest.fixture
def silent(lab: Cluster) -> Iterator[set[str]]:
    """Nodes that are cut off until the test is over."""
    names = set[str]()
    yield names
    for name in names:  # one that went on could die: Kubernetes 1.34 dereferences nil where a Pod was deleted by force
        lab.replace_node(name)


def directory_of(volume: Path, studies: Studies, pod: Manifest, step: int) -> Path:
    """Where a Pod writes its checkpoints, once it has written that of a step."""
    owner = studies.get("study", "search")["metadata"]
    labels = pod["metadata"]["labels"]
    attempt = f"attempt-{labels['halvard.dev/attempt']}-{pod['metadata']['uid']}"
    directory: Path = volume / f"search-{owner['uid'][:8]}" / labels["halvard.dev/trial"] / attempt
    eventually((directory / f"step-{step}").exists)
    return directory


def tell(directory: Path, until: int, loss: float) -> None:
    """Tells the trainer that writes to this directory how to go on."""
    (directory / "unfinished").write_text(json.dumps([until, loss]))
    (directory / "unfinished").rename(directory / "word")


def refused(studies: Studies) -> float:
    """How many pushes were not believed: of an attempt that is over, or of a Pod that is."""
    return sum(studies.metric("halvard_pushes_total", result=why) for why in ("superseded", "unauthorized"))


def came_from(studies: Studies, pod: str) -> str:
    """The checkpoint that a Pod of the zombie's kind went on from, and its step, as its log says."""
    [line] = [line for line in studies.logs(pod).splitlines() if line.startswith("from ")]
    return line.removeprefix("from ")


def authors(directory: Path) -> set[str]:
    """The Pods whose checkpoints are in a directory."""
    return {path.read_text() for path in directory.glob("step-*") if path.suffix == ""}


def results(trial: Manifest) -> list[tuple[int, int, float]]:
    """Attempt, step and value of each result."""
    return [(rung["attempt"], rung["step"], rung["value"]) for rung in trial["status"]["rungs"]]


def uid(pod: dict[str, Any]) -> str:
    """What tells a Pod from another of its name."""
    return str(pod["metadata"]["uid"])


def test_a_node_that_was_cut_off_changes_nothing_meanwhile_and_when_it_is_back(
    studies: Studies, lab: Cluster, volume: Path, silent: set[str]
) -> None:
    studies.apply(search(lab))
    studies.wait("trial/search-0000", "jsonpath={.status.checkpoint.name}=step-2")
    old = studies.get("pod", "search-0000-1")
    saved = studies.trial(0)["status"]["checkpoint"]
    assert (saved["attempt"], saved["pod"]) == (1, uid(old))
    node = old["spec"]["nodeName"]
    silent.add(node)
    lab.stop_kubelet(node)

    studies.wait("pod/search-0000-2", "jsonpath={.status.phase}=Running")
    new = studies.get("pod", "search-0000-2")
    assert new["spec"]["nodeName"] != node
    theirs, ours = directory_of(volume, studies, old, 2), directory_of(volume, studies, new, 4)  # from step 2
    before = refused(studies)
    tell(theirs, 10**6, -1.0)  # better than anything, and with checkpoints of the same names
    eventually(lambda: (theirs / "step-7").exists() and refused(studies) > before)
    assert (theirs / "step-2").read_text() == uid(old)  # the one acknowledged, whatever was saved since
    assert came_from(studies, "search-0000-2") == f"/halvard-resume/{theirs.name}/step-2 2"
    assert studies.metric("halvard_pushes_total", result="superseded") > 0
    assert studies.metric("halvard_checkpoints_superseded_total") > 0
    tell(ours, BUDGET, 0.5)
    studies.wait_complete()
    trial, last = studies.trial(0), studies.study()
    assert results(trial) == [(2, BUDGET, 0.5)]
    assert (trial["status"]["checkpoint"]["pod"], trial["status"]["faults"]) == (uid(new), 1)
    assert (authors(ours), authors(theirs)) == ({uid(new)}, {uid(old)})

    after = refused(studies)
    eventually(lambda: refused(studies) > after)  # it never ceases
    lab.continue_kubelet(node)
    studies.kubectl("wait", "--for=delete", "pod/search-0000-1", "--timeout=120s")
    assert studies.trial(0)["metadata"]["resourceVersion"] == trial["metadata"]["resourceVersion"]
    assert studies.study() == last
    assert (authors(ours), authors(theirs)) == ({uid(new)}, {uid(old)})


def test_two_pods_of_one_number_write_two_directories_and_one_of_them_is_believed(
    studies: Studies, lab: Cluster, volume: Path, silent: set[str], operator: OperatorProcess
) -> None:
    studies.apply(search(lab))
    studies.wait("pod/search-0000-1", "condition=PodScheduled")
    operator.kill()  # before it can store that the trial runs
    old = studies.get("pod", "search-0000-1")
    theirs = directory_of(volume, studies, old, 2)
    node = old["spec"]["nodeName"]
    silent.add(node)
    lab.stop_kubelet(node)
    lab.kubectl("cordon", node)
    studies.kubectl("delete", "pod", "search-0000-1", "--force", "--grace-period=0")
    operator.start()

    studies.wait("pod/search-0000-1", "jsonpath={.status.phase}=Running")
    new = studies.get("pod", "search-0000-1")
    assert uid(new) != uid(old)
    ours = directory_of(volume, studies, new, 2)
    tell(theirs, 10**6, -1.0)
    eventually((theirs / f"step-{BUDGET}").exists)
    eventually(lambda: studies.metric("halvard_pushes_total", result="unauthorized") > 0)
    tell(ours, BUDGET, 0.5)
    studies.wait_complete()
    trial = studies.trial(0)
    assert results(trial) == [(1, BUDGET, 0.5)]
    assert (trial["status"]["checkpoint"]["pod"], trial["status"]["faults"]) == (uid(new), 0)
    assert (authors(ours), authors(theirs)) == ({uid(new)}, {uid(old)})

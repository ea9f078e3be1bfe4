"""Promotions in real Pods: hot in the same one, cold from a checkpoint, and the same decisions as on one machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.searches import CHECKPOINTS, TRAINER, random_search, run_here
from e2e.studies import Studies, python, results, show, study, template
from lab.audit import of_trial, tally, writes
from lab.cluster import OPERATOR, Cluster
from lab.operator_process import OperatorProcess

MOST_WRITES = 8
# The first three results promote trial 0, which has left its Pod by then; of six the last is the best at once.
LOSSES = (0.1, 0.5, 0.6, 0.7, 0.8, 0.05)


@pytest.fixture(scope="module")
def climbed(shared: Studies) -> Studies:
    """A finished study with one cold and one hot promotion."""
    shared.cluster.claim(shared.namespace, "checkpoints")
    shared.apply(study(template(shared.cluster, python(TRAINER)), LOSSES, checkpoint=CHECKPOINTS))
    shared.wait_complete()
    return shared


def told(studies: Studies, pod: str) -> list[dict[str, Any]]:
    """What the trainer of a Pod printed to its end."""
    studies.wait(f"pod/{pod}", "jsonpath={.status.phase}=Succeeded")
    return [json.loads(line) for line in studies.logs(pod).splitlines() if line.startswith("{")]


def test_a_hot_promotion_goes_on_in_its_own_process(climbed: Studies) -> None:
    steps = told(climbed, "search-0005-1")
    assert climbed.pods_of(5) == ["search-0005-1"]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert len({step["pid"] for step in steps}) == 1
    assert climbed.trial(5)["status"]["attempt"] == 1
    assert climbed.metric("halvard_promotions_total", mode="hot") == 1


def test_a_paused_trial_is_resumed_from_its_checkpoint(climbed: Studies) -> None:
    steps = told(climbed, "search-0000-2")
    assert climbed.pods_of(0) == ["search-0000-1", "search-0000-2"]
    assert [(step["step"], step["start"], step["came_with"]) for step in steps] == [
        (2, 1, "search-0000 1"),
        (3, 1, "search-0000 1"),
    ]
    assert climbed.metric("halvard_promotions_total", mode="cold") == 1
    assert climbed.metric("halvard_legs_started_total", start="resumed") == 1


def test_the_checkpoint_it_came_from_is_read_only(climbed: Studies) -> None:
    assert {step["read_only"] for step in told(climbed, "search-0000-2")} == {True}


def test_a_resumed_leg_runs_on_the_node_of_the_one_before(climbed: Studies) -> None:
    before, after = (climbed.get("pod", name)["spec"]["nodeName"] for name in climbed.pods_of(0))
    assert after == before


def test_a_study_deleted_while_the_operator_is_down_leaves_only_checkpoints(
    studies: Studies, operator: OperatorProcess, lab: Cluster
) -> None:
    directory = lab.claim(studies.namespace, "checkpoints")
    studies.apply(study(template(lab, python(TRAINER)), LOSSES[:2], checkpoint=CHECKPOINTS))
    studies.wait_complete()
    operator.stop()
    studies.kubectl("delete", "study", "search", "--timeout=60s")
    studies.kubectl("wait", "--for=delete", "trials,pods", "--all", "--timeout=60s")
    assert [studies.every(kind) for kind in ("studies", "trials", "pods")] == [[], [], []]
    kept = sorted(path.relative_to(directory).parts[1:3] for path in directory.rglob("step-1"))
    assert [(trial, attempt[:10]) for trial, attempt in kept] == [
        ("search-0000", "attempt-1-"),
        ("search-0001", "attempt-1-"),
    ]


def test_a_cluster_decides_as_one_machine_does(studies: Studies, tmp_path: Path) -> None:
    search = random_search(studies.cluster)
    studies.apply(search)
    here = run_here(search, tmp_path)
    studies.wait_complete()
    there = studies.every("trials")
    assert results(there) == results(here)
    assert [trial["spec"] for trial in there] == [trial["spec"] for trial in here]
    assert any(trial["spec"]["budget"] == 9 for trial in there)


def test_a_trial_of_three_rungs_costs_few_writes(studies: Studies, lab: Cluster) -> None:
    studies.apply(random_search(lab))
    studies.wait_complete()
    made = [write for write in writes(lab.audit, studies.namespace) if write.user == OPERATOR]
    climbed = [trial["metadata"]["name"] for trial in studies.every("trials") if len(trial["status"]["rungs"]) == 3]
    each = [of_trial(made, name) for name in climbed]
    show("writes of a trial with three rungs", tally(each[0]))
    assert 0 < max(map(len, each)) <= MOST_WRITES

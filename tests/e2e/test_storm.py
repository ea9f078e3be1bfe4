"""A node on which every trainer fails at once: few Pods are made there, and the study goes on elsewhere."""

import json

import pytest

from e2e.studies import Studies, python, study, template
from halvard.nodes import FIRST_PAUSE
from halvard.starting import LOOK_AHEAD
from lab.cluster import GPUS, Cluster

TRIALS = 24
# A node that fails at once looks idle, so it would get nearly every Pod.
TRAINER = """
import os, sys, time
from halvard_trainer import Trial
if os.environ["NODE"] == os.environ["BROKEN"]:
    sys.exit("RuntimeError: CUDA error: no device")
trial = Trial.from_environment()
for step in trial.steps():
    time.sleep(1)
    trial.report(loss=trial.parameters["x"] / step)
"""


@pytest.fixture(scope="module")
def stormy(shared: Studies, lab: Cluster) -> Studies:
    """A finished study, half of whose GPUs were on a broken node."""
    env = [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "BROKEN", "value": broken_node(lab)},
    ]
    trainer = template(lab, python(TRAINER), env=env)
    shared.apply(study(trainer, [*range(1, TRIALS + 1)], parallelism=2 * GPUS))
    shared.wait_complete()
    return shared


def broken_node(lab: Cluster) -> str:
    return str(json.loads(lab.kubectl("get", "nodes", "--output=json").stdout)["items"][-1]["metadata"]["name"])


def on(studies: Studies, node: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in studies.every("pods") if pod["spec"]["nodeName"] == node]


def test_few_pods_are_made_on_the_broken_node(stormy: Studies, lab: Cluster) -> None:
    node, condition = broken_node(lab), stormy.condition("Complete")
    assert condition["status"] == "True"
    times = 1 + sum(note.startswith(f"{node} is avoided") for note in notes(stormy, "NodeAvoided"))
    assert 3 <= len(on(stormy, node)) <= 2 + times * (GPUS + LOOK_AHEAD)
    assert len(on(stormy, node)) < TRIALS


def test_at_most_two_trials_failed_and_all_others_have_their_results(stormy: Studies) -> None:
    status = stormy.study()
    assert (status["trials"]["total"], status["trials"]["failed"] <= 2) == (TRIALS, True)
    rungs = [trial["status"]["rungs"] for trial in stormy.every("trials") if trial["status"]["state"] != "Failed"]
    assert all(rungs)


def test_people_are_told_which_node_is_avoided_and_why_legs_ran_again(stormy: Studies, lab: Cluster) -> None:
    node = broken_node(lab)
    first = notes(stormy, "NodeAvoided")[0]
    assert first.startswith(f"{node} is avoided for {FIRST_PAUSE / 60:.0f} min: the last 3 trials there ended")
    assert "RuntimeError: CUDA error: no device" in first
    again = notes(stormy, "LegRunsAgain")
    assert again
    assert all(f"NodeSuspect: {node} may be to blame: NonZeroExit: the trainer exited" in note for note in again)
    assert stormy.metric("halvard_faults_total", reason="NodeSuspect") == len(again)


def test_pods_of_legs_that_ran_again_were_kept_off_that_node(stormy: Studies, lab: Cluster) -> None:
    node = broken_node(lab)
    keeping_off = [pod for pod in stormy.every("pods") if pod["metadata"]["annotations"].get("halvard.dev/avoids")]
    assert keeping_off
    assert {pod["metadata"]["annotations"]["halvard.dev/avoids"] for pod in keeping_off} == {node}
    assert node not in {pod["spec"]["nodeName"] for pod in keeping_off}


def notes(studies: Studies, reason: str) -> list[str]:
    """What Events with this reason say, in order."""
    events = [event for event in studies.every("events") if event["reason"] == reason]
    events.sort(key=lambda event: event.get("eventTime") or event["metadata"]["creationTimestamp"])
    return [event.get("note") or event["message"] for event in events]

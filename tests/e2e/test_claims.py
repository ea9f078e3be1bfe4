"""What becomes of a Study whose checkpoints have nowhere to go, or are damaged: it goes on, or says why it does not."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.searches import CHECKPOINTS
from e2e.studies import Manifest, Studies, eventually, python, study, template
from lab.cluster import Cluster

# The first Pod waits after its third step to be taken away.
TRAINER = """
import os, time
from halvard_trainer import Trial

trial = Trial.from_environment()
for step in trial.steps():
    trial.report(loss=1 / step, checkpoint=lambda path: path.write_bytes(bytes(50_000)))
    print("step", step, "from", trial.start, flush=True)
    while step == 3 and os.uname().nodename == "search-0000-1":
        time.sleep(1)
"""


def search(cluster: Cluster, budget: int) -> Manifest:
    """A Study of two trials with one rung each."""
    trainer = template(cluster, python(TRAINER))
    limits = {"trials": 2}
    return study(trainer, [0.5, 0.6], scheduler={"none": {"budget": budget}}, checkpoint=CHECKPOINTS, limits=limits)


@pytest.fixture
def volume(lab: Cluster, studies: Studies) -> Path:
    """The directory behind the claim for checkpoints."""
    return lab.claim(studies.namespace, "checkpoints")


@pytest.fixture
def small(volume: Path) -> Iterator[Path]:
    """The same, with room for two checkpoints."""
    mount("-t", "tmpfs", "-o", "size=128k,mode=0777", "tmpfs", str(volume))
    yield volume
    subprocess.run(["umount", "--lazy", volume], check=True)


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def test_without_its_claim_a_study_waits_as_in_a_queue(studies: Studies, lab: Cluster) -> None:
    studies.apply(search(lab, 2))
    studies.wait("pod/search-0000-1", "condition=PodScheduled=False")
    [scheduled] = [
        c for c in studies.get("pod", "search-0000-1")["status"]["conditions"] if c["type"] == "PodScheduled"
    ]
    assert 'persistentvolumeclaim "checkpoints" not found' in scheduled["message"]
    eventually(lambda: studies.metric("halvard_oldest_pending_pod_seconds") > 0)
    assert [c for c in studies.study().get("conditions", ()) if (c["type"], c["status"]) == ("Degraded", "True")] == []
    lab.claim(studies.namespace, "checkpoints")
    studies.wait_complete()


@pytest.mark.unsound(
    "time", reason="a push may come first, and counts from the sidecar's start, while the trainer waited"
)
def test_where_nothing_can_be_written_the_study_is_degraded_until_it_can(
    studies: Studies, lab: Cluster, small: Path
) -> None:
    mount("-o", "remount,ro", str(small))
    studies.apply(search(lab, 1))
    message = studies.wait_degraded("CreateContainerConfigError")
    assert "container trainer: failed to create subPath directory" in message
    mount("-o", "remount,rw", str(small))
    studies.wait_complete()
    statuses = [trial["status"] for trial in studies.every("trials")]
    assert [(status["state"], status["attempt"], status["faults"]) for status in statuses] == [("Complete", 1, 0)] * 2


def test_a_full_volume_fails_the_trial_that_cannot_save_and_says_so(
    studies: Studies, lab: Cluster, small: Path
) -> None:
    studies.apply(search(lab, 9))
    studies.wait("study/search", "condition=Failed")
    assert studies.condition("Failed")["reason"] == "NoResult"
    for index in (0, 1):
        status = studies.trial(index)["status"]
        assert status["state"] == "Failed"
        assert status["message"].startswith("NonZeroExit: the trainer exited with code 1: ")
        assert "No space left on device" in status["message"]
    assert list(small.rglob("step-*"))


def truncate_the_last(directory: Path) -> None:
    os.truncate(directory / "step-3", 100)


@pytest.mark.parametrize(("harm", "start"), [(truncate_the_last, 2), (shutil.rmtree, 0)], ids=["one", "all"])
def test_a_checkpoint_that_was_damaged_gives_way_to_the_one_before_or_to_none(
    studies: Studies, lab: Cluster, volume: Path, harm: Callable[[Path], None], start: int
) -> None:
    studies.apply(search(lab, 6))
    studies.wait("trial/search-0000", "jsonpath={.status.checkpoint.name}=step-3")
    [directory] = volume.glob("search-*/search-0000/attempt-1-*")
    harm(directory)
    studies.kubectl("delete", "pod", "search-0000-1", "--wait=false")
    studies.wait("trial/search-0000", "jsonpath={.status.state}=Complete")
    studies.wait("pod/search-0000-2", "jsonpath={.status.phase}=Succeeded")
    log = studies.logs("search-0000-2")
    assert f"step {start + 1} from {start}" in log
    assert f"/halvard-resume/{directory.name}/step-3 is not used: " in log
    notes = [event.get("note") or event["message"] for event in studies.every("events")]
    said = f"its checkpoint of step 3 was not used: attempt 2 first reported at step {start + 1}"
    assert notes.count(f"search-0000: {said}") == 1
    status = studies.trial(0)["status"]
    assert [(rung["attempt"], rung["step"], rung["value"]) for rung in status["rungs"]] == [(2, 6, 1 / 6)]
    studies.wait_complete()

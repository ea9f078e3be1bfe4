"""A Study that is changed while it runs behaves as users of Jobs expect."""

from e2e.studies import Studies, eventually, python, study, template

# A trial's first Pod saves a checkpoint of its first step and waits until it is taken away; the next one trains on.
TRAINER = """
import os, pathlib, signal, sys
from halvard_trainer import Trial

trial = Trial.from_environment()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for step in trial.steps():
    if step == 2 and os.uname().nodename.endswith("-1"):
        pathlib.Path("/halvard/ready").touch()
        signal.pause()
    trial.report(loss=trial.parameters["x"] / step, checkpoint=lambda path: path.write_text(f"{trial.start}"))
"""
READY = {"exec": {"command": ["test", "-e", "/halvard/ready"]}, "periodSeconds": 1}
CHECKPOINTS = {"persistentVolumeClaim": {"claimName": "checkpoints"}}
LADDER = {"asha": {"minBudget": 2, "maxBudget": 4, "reductionFactor": 2}}


def begin(studies: Studies, parallelism: int, trials: int) -> None:
    """Starts a study of up to three trials, and waits until all that may run do."""
    studies.cluster.claim(studies.namespace, "checkpoints")
    trainer = template(studies.cluster, python(TRAINER), readinessProbe=READY)
    spec = {"parallelism": parallelism, "limits": {"trials": trials}, "scheduler": LADDER, "checkpoint": CHECKPOINTS}
    studies.apply(study(trainer, [0.1, 0.2, 0.3], **spec))
    ready(studies, parallelism)


def ready(studies: Studies, number: int) -> None:
    """Waits until the first Pods of the first so many trials have saved their checkpoints."""
    for index in range(number):
        studies.wait(f"pod/search-{index:04d}-1", "condition=Ready")


def running(studies: Studies) -> list[str]:
    """The Pods that are there and were not told to go."""
    return [pod["metadata"]["name"] for pod in studies.every("pods") if "deletionTimestamp" not in pod["metadata"]]


def test_a_suspended_study_has_no_pods_and_goes_on_from_its_checkpoints(studies: Studies) -> None:
    begin(studies, 2, trials=2)
    studies.change(suspend=True)
    studies.wait("study/search", "condition=Suspended")
    for trial in ("search-0000", "search-0001"):
        studies.wait(f"trial/{trial}", "jsonpath={.status.message}=the study is suspended")
    eventually(lambda: not studies.every("pods"))
    assert studies.study()["state"] == "Suspended"
    assert [trial["status"]["state"] for trial in studies.every("trials")] == ["Pending", "Pending"]
    studies.change(suspend=False)
    studies.wait_complete()
    assert studies.condition("Suspended")["status"] == "False"
    # the third, if there is one: the better trial had left its Pod when it was promoted
    assert studies.metric("halvard_legs_started_total", start="resumed") in (2, 3)
    assert [trial["status"]["faults"] for trial in studies.every("trials")] == [0, 0]


def test_lower_parallelism_takes_pods_away_and_higher_parallelism_brings_them_back(studies: Studies) -> None:
    begin(studies, 3, trials=3)
    studies.change(parallelism=1)
    eventually(lambda: running(studies) == ["search-0000-1"])
    for index in (1, 2):
        studies.wait(f"trial/search-{index:04d}", "jsonpath={.status.message}=parallelism was lowered")
    studies.change(parallelism=3)
    for index in (1, 2):
        studies.wait(f"trial/search-{index:04d}", "jsonpath={.status.rungs[*].budget}=2")
    assert running(studies)[0] == "search-0000-1"
    studies.kubectl("delete", "pod", "search-0000-1", "--wait=false")
    studies.wait_complete()
    assert [trial["status"]["faults"] for trial in studies.every("trials")] == [1, 0, 0]


def test_more_trials_may_be_asked_for_while_the_study_runs(studies: Studies) -> None:
    begin(studies, 2, trials=2)
    studies.change(parallelism=3, limits={"trials": 3})
    ready(studies, 3)
    assert studies.study()["used"]["trials"] == "3/3"
    studies.kubectl("delete", "pods", "--all", "--wait=false")
    studies.wait_complete()
    assert studies.study()["trials"]["total"] == 3

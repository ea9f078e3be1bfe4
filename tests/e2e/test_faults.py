"""What each fault of a Pod makes of its trial: infrastructure is never counted, a program's own failure is."""

import json
from typing import Any

import pytest

from e2e.studies import Studies, python, study, template
from lab.audit import writes
from lab.cluster import Cluster
from lab.operator_process import OperatorProcess

# The parameter says what becomes of a trial's first Pod once its first report has arrived (before it, the node might be
# to blame); the next one trains as it should. Asked to go it saves and exits 0, as a good citizen does.
TRAINER = """
import os, pathlib, signal, sys, time
from halvard_trainer import Trial

def save_and_leave(*_):
    sys.exit(0)

def wait_to_be_told_to_go():
    pathlib.Path("/halvard/ready").touch()
    signal.pause()

trial = Trial.from_environment()
signal.signal(signal.SIGTERM, save_and_leave)
fate = trial.parameters["x"] if os.uname().nodename.endswith("-1") else "trains"
for step in trial.steps():
    while step == 2 and not pathlib.Path("/halvard/spool.json").exists():
        time.sleep(0.05)
    match fate if step == 2 else "trains":
        case "runs out of memory":
            b"x" * 10**9
        case "exits 1":
            sys.exit("ValueError: no such optimizer: adamm")
        case "exits 0":
            sys.exit(0)
        case "exits 42":
            sys.exit(42)
        case "is deleted" | "is evicted":
            wait_to_be_told_to_go()
    trial.report(loss=1 / step)
"""
FATES = ["runs out of memory", "exits 1", "exits 0", "is deleted", "is evicted", "exits 42", "trains"]
POLICY = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}]}
READY = {"exec": {"command": ["test", "-e", "/halvard/ready"]}, "periodSeconds": 1}

# Knows no verdicts: it reports once it is told to, and exits.
PATIENT = """
import os, pathlib, time
while not pathlib.Path("/halvard/go").exists():
    time.sleep(0.05)
with open(os.environ["HALVARD_REPORTS"], "a") as reports:
    reports.write('{"step": 1, "loss": 0.25}\\n')
"""

# Trains one step, whatever its budget.
STUBBORN = """
import json, os
loss = json.loads(os.environ["HALVARD_PARAMETERS"])["x"]
with open(os.environ["HALVARD_REPORTS"], "a") as reports:
    reports.write(json.dumps({"step": 1, "loss": loss}) + "\\n")
"""


@pytest.fixture(scope="module")
def faults(shared: Studies) -> Studies:
    """A finished study of one trial for each fate."""
    trainer = template(shared.cluster, python(TRAINER), readinessProbe=READY)
    ladder = {"asha": {"minBudget": 2, "maxBudget": 4, "reductionFactor": 2}}
    shared.apply(study(trainer, FATES, parallelism=len(FATES), failurePolicy=POLICY, scheduler=ladder))
    deleted, evicted = (f"search-{FATES.index(fate):04d}-1" for fate in ("is deleted", "is evicted"))
    for pod in (deleted, evicted):
        shared.wait(f"pod/{pod}", "condition=Ready")
    shared.kubectl("delete", "pod", deleted, "--wait=false")
    evict(shared, evicted)
    shared.wait_complete()
    return shared


def evict(studies: Studies, pod: str) -> None:
    """Evicts a Pod as `kubectl drain` does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    path = f"/api/v1/namespaces/{studies.namespace}/pods/{pod}/eviction"
    studies.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))


def of(studies: Studies, fate: str) -> dict[str, Any]:
    """The status of the trial of this fate."""
    status: dict[str, Any] = studies.trial(FATES.index(fate))["status"]
    return status


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        ("runs out of memory", "OOMKilled: the trainer used more memory than it may (limit 128Mi)"),
        ("exits 1", "NonZeroExit: the trainer exited with code 1: ValueError: no such optimizer: adamm"),
        ("exits 0", "MetricsUnavailable: the trainer exited 0 without a report of the objective at its budget"),
    ],
)
def test_a_failure_of_the_program_fails_the_trial(faults: Studies, fate: str, message: str) -> None:
    status = of(faults, fate)
    assert (status["state"], status["message"]) == ("Failed", message)
    assert (status["attempt"], status["faults"], status["rungs"]) == (1, 0, [])
    assert len(faults.pods_of(FATES.index(fate))) == 1


@pytest.mark.parametrize("fate", ["is deleted", "is evicted", "exits 42"])
def test_a_pod_that_was_taken_away_or_whose_exit_code_is_ignored_runs_again(faults: Studies, fate: str) -> None:
    status = of(faults, fate)
    assert (status["attempt"] >= 2, status["faults"]) == (True, 1)
    assert status["rungs"][0]["value"] == 0.5
    assert status["state"] in ("Paused", "Complete")


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("is deleted", "PodDeleted: "),
        ("is evicted", "Disrupted: EvictionByEvictionAPI"),
        ("exits 42", "NonZeroExit: the trainer exited with code 42 (failurePolicy: Ignore)"),
    ],
)
def test_an_event_tells_why_a_leg_runs_again(faults: Studies, fate: str, reason: str) -> None:
    notes = [event.get("note") or event["message"] for event in faults.every("events")]
    trial = f"search-{FATES.index(fate):04d}"
    assert [note for note in notes if note.startswith(f"{trial}: {reason}")]


def test_only_failures_of_the_program_are_counted(faults: Studies) -> None:
    status = faults.study()
    assert status["trials"]["failed"] == 3
    assert status["used"]["failedTrials"] == "3/20"
    assert status["used"]["trials"] == f"{len(FATES)}/{len(FATES)}"


def test_time_that_a_fault_took_is_shown_as_lost(faults: Studies) -> None:
    assert of(faults, "is evicted")["lost"]["gpuSeconds"] > 0
    assert faults.metric("halvard_gpu_seconds", outcome="lost") > 0


def test_a_program_that_ignores_its_budget_fails_once_it_is_promoted(studies: Studies) -> None:
    studies.apply(study(template(studies.cluster, python(STUBBORN)), [0.1, 0.2, 0.3]))
    studies.wait_complete()
    status = studies.trial(0)["status"]
    assert (status["state"], status["message"].partition(":")[0]) == ("Failed", "MetricsUnavailable")
    assert studies.pods_of(0) == ["search-0000-1", "search-0000-2"]


def test_an_image_that_cannot_be_pulled_degrades_the_study_until_it_is_mended(studies: Studies) -> None:
    sound = study(template(studies.cluster, python(TRAINER)), ["trains"])
    broken = json.loads(json.dumps(sound))
    broken["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.invalid/halvard/missing:1"
    studies.apply(broken)
    studies.wait("study/search", "condition=Degraded")
    degraded = studies.condition("Degraded")
    assert degraded["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert "registry.invalid/halvard/missing:1" in degraded["message"]
    studies.apply(sound)
    studies.wait_complete()
    assert studies.condition("Degraded")["status"] == "False"
    assert studies.pods_of(0) == ["search-0000-2"]
    assert (studies.trial(0)["status"]["faults"], studies.study()["trials"]["failed"]) == (0, 0)


def test_an_exhausted_quota_is_a_queue(studies: Studies) -> None:
    studies.set_quota(0)
    studies.apply(study(template(studies.cluster, python(TRAINER)), ["trains", "trains too"], parallelism=2))
    message = studies.wait_degraded("QuotaExhausted")
    assert "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=0" in message
    assert studies.every("pods") == []
    studies.set_quota(2)
    studies.wait_complete()
    statuses = [trial["status"] for trial in studies.every("trials")]
    assert [(status["attempt"], status["faults"]) for status in statuses] == [(2, 0), (2, 0)]  # 2: the pause raised it
    assert studies.study()["trials"]["failed"] == 0


def test_a_result_while_the_operator_is_down_is_neither_lost_nor_made_twice(
    studies: Studies, operator: OperatorProcess
) -> None:
    studies.apply(study(template(studies.cluster, python(PATIENT)), ["a", "b"]))
    studies.wait("pod/search-0000-1", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    operator.kill()
    studies.exec("search-0000-1", "touch", "/halvard/go")
    studies.wait("pod/search-0000-1", "jsonpath={.status.initContainerStatuses[0].state.terminated.reason}")
    operator.start()
    studies.wait("pod/search-0001-1", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    status = studies.trial(0)["status"]
    assert [(rung["budget"], rung["value"]) for rung in status["rungs"]] == [(1, 0.25)]
    assert (status["state"], status["attempt"], status["faults"]) == ("Paused", 2, 0)
    assert studies.pods_of(0) == ["search-0000-1"]
    studies.exec("search-0001-1", "touch", "/halvard/go")
    studies.wait_complete()


def test_no_pod_is_made_twice_however_often_the_operator_is_killed(
    studies: Studies, operator: OperatorProcess, lab: Cluster
) -> None:
    trainer = template(studies.cluster, python(TRAINER))
    studies.apply(study(trainer, [f"trains {n}" for n in range(8)], parallelism=4))
    for index in (1, 4):
        studies.wait(f"pod/search-{index:04d}-1", "condition=PodScheduled")
        operator.kill()
        operator.start()
    studies.wait_complete()
    pods = [w.name for w in writes(lab.audit, studies.namespace) if (w.verb, w.resource) == ("create", "pods")]
    assert sorted(pods) == sorted(set(pods))
    assert [trial["status"]["faults"] for trial in studies.every("trials")] == [0] * 8
    assert all(trial["status"]["rungs"][0]["value"] == 1.0 for trial in studies.every("trials"))

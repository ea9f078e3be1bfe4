"""Reports that are no reports, those of others, and those that have a hard time on their way.

Each has one meaning and is counted; the last one arrives, or its leg runs again; nothing stalls.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from e2e.pushes import door_of, push, token
from e2e.studies import CONFINED, UNPRIVILEGED, Manifest, Studies, eventually, python, study, template
from lab.cluster import Cluster
from lab.machine import run, running_with
from lab.operator_process import OperatorProcess

# Writes what its parameter says, a line each; knows no verdicts.
TRAINER = """
import json, os
with open(os.environ["HALVARD_REPORTS"], "a") as reports:
    for line in json.loads(os.environ["HALVARD_PARAMETERS"])["x"].split("|"):
        reports.write(line.replace("oversized", "x" * 20_000) + "\\n")
"""
INVALID = ["not JSON", '{"step": "two", "loss": 0.1}', '{"step": 1, "loss": "low"}', '{"loss": 0.1}', "oversized"]
VALUES = [
    "|".join([*INVALID, '{"step": 1, "loss": 0.5}']),
    '{"step": 1, "loss": NaN}',
    '{"step": 1, "loss": -Infinity}',
    '{"step": 1, "other": 0.1}|{"step": 2, "loss": 0.6}|{"step": 1, "loss": 0.1}',
]


@pytest.fixture(scope="module")
def reported(shared: Studies) -> Studies:
    """A finished study of odd reports, too few for a promotion."""
    ladder = {"asha": {"minBudget": 1, "maxBudget": 5, "reductionFactor": 5}}
    trainer = template(shared.cluster, python(TRAINER))
    shared.apply(study(trainer, VALUES, parallelism=len(VALUES), scheduler=ladder))
    shared.wait_complete()
    return shared


def first_result(studies: Studies, trial: int) -> Manifest:
    """What a trial came to at the lowest rung."""
    found: Manifest = studies.trial(trial)["status"]["rungs"][0]
    return found


def test_lines_that_are_no_reports_are_counted_and_passed_over(reported: Studies) -> None:
    reported.wait("pod/search-0000-1", "jsonpath={.status.phase}=Succeeded")
    said = reported.logs("search-0000-1", "halvard-collector")
    assert said.count("not a report") == len(INVALID)
    assert f"{len(INVALID)} lines not valid" in said
    assert reported.metric("halvard_reports_dropped_total", reason="invalid") >= len(INVALID)
    assert first_result(reported, 0)["value"] == 0.5


@pytest.mark.parametrize("trial", [1, 2])
def test_a_value_that_is_not_finite_is_a_result_that_never_goes_on(reported: Studies, trial: int) -> None:
    found = reported.trial(trial)
    assert [(rung["budget"], rung.get("value")) for rung in found["status"]["rungs"]] == [(1, None)]
    assert (found["spec"]["budget"], found["status"]["state"]) == (1, "Paused")
    assert "value not finite" in found["status"]["message"]


def test_a_step_that_goes_backwards_is_passed_over(reported: Studies) -> None:
    found = first_result(reported, 3)
    assert (found["step"], found["value"]) == (2, 0.6)


def test_the_best_is_of_the_finite_values(reported: Studies) -> None:
    assert reported.study()["best"]["value"] == 0.5


@pytest.mark.parametrize(
    ("body", "status", "result"),
    [
        ("not JSON", 400, "invalid"),
        ('{"reports": [{"step": 0}], "elapsed": 1}', 400, "invalid"),
        ("x" * 70_000, 413, "too_large"),
    ],
)
def test_a_push_that_is_none_is_refused_and_counted(
    reported: Studies, shared_operator: OperatorProcess, body: str, status: int, result: str
) -> None:
    before = reported.metric("halvard_pushes_total", result=result)
    assert push(door_of(shared_operator), token(reported, "search-0003-1"), body)[0] == status
    assert reported.metric("halvard_pushes_total", result=result) == before + 1


def test_a_strangers_token_is_refused_and_counted(reported: Studies, shared_operator: OperatorProcess) -> None:
    container = {"name": "main", "image": reported.cluster.trainer_image, "command": ["sleep", "1000"]}
    spec = {"securityContext": UNPRIVILEGED, "containers": [{**container, "securityContext": CONFINED}]}
    reported.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": spec})
    before = reported.metric("halvard_pushes_total", result="unauthorized")
    status, answer = push(door_of(shared_operator), token(reported, "stranger"))
    assert (status, answer["error"]) == (403, f"Pod {reported.namespace}/stranger runs no trial that is known here")
    assert reported.metric("halvard_pushes_total", result="unauthorized") == before + 1


def test_a_token_for_somebody_else_is_refused(reported: Studies, shared_operator: OperatorProcess) -> None:
    assert push(door_of(shared_operator), token(reported, "search-0003-1", "https://kubernetes.default.svc"))[0] == 401
    assert push(door_of(shared_operator), "forged")[0] == 401


def test_an_old_attempts_token_changes_nothing_and_is_counted(
    reported: Studies, shared_operator: OperatorProcess
) -> None:
    trial = reported.trial(3)
    before = reported.metric("halvard_pushes_total", result="superseded")
    status, answer = push(door_of(shared_operator), token(reported, "search-0003-1"))
    assert (status, list(answer)) == (200, ["stop"])
    assert reported.metric("halvard_pushes_total", result="superseded") == before + 1
    assert reported.trial(3) == trial


# Reports a step whenever it is told to, and exits when it has reported the last; knows no library, and no verdicts.
TOLD = """
import os, pathlib, time
with open(os.environ["HALVARD_REPORTS"], "a") as reports:
    for step in (1, 2, 3):
        while not pathlib.Path(f"/halvard/go-{step}").exists():
            time.sleep(0.05)
        reports.write(f'{{"step": {step}, "loss": {1 / step}}}\\n')
        reports.flush()
"""
LADDER = {"asha": {"minBudget": 3, "maxBudget": 9, "reductionFactor": 3}}


def begin(studies: Studies) -> None:
    """A Study of one trial, which waits to be told to report."""
    studies.apply(study(template(studies.cluster, python(TOLD)), [1], scheduler=LADDER))
    studies.wait("pod/search-0000-1", "condition=Ready")


def tell(studies: Studies, step: int, pod: str = "search-0000-1") -> None:
    """Lets the trainer report this step."""
    studies.exec(pod, "touch", f"/halvard/go-{step}")


def finish(studies: Studies, pod: str = "search-0000-1") -> None:
    """Waits until the Study is Complete, and its last Pod has said how it ended."""
    studies.wait_complete()
    studies.wait(f"pod/{pod}", "jsonpath={.status.phase}=Succeeded")


def sidecar(operator: OperatorProcess, pod: str = "search-0000-1") -> list[int]:
    """The sidecar's process, where it runs."""
    url = f"HALVARD_COLLECTOR_URL={operator.settings['HALVARD_COLLECTOR_URL']}"
    return running_with(url, f"HOSTNAME={pod}", "HALVARD_SPOOL=/halvard/spool.json")


def kill_sidecar(operator: OperatorProcess) -> None:
    """SIGKILL, once it runs."""
    for pid in eventually(lambda: sidecar(operator)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_until_it_stays_away(studies: Studies, operator: OperatorProcess) -> bool:
    """Kills the sidecar wherever it runs; whether the kubelet waits so long by now that the trainer ends meanwhile."""
    for pid in sidecar(operator):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = studies.get("pod", "search-0000-1")["status"]["initContainerStatuses"][0]
    return bool(status["restartCount"] >= 3 and "running" not in status["state"])  # 40 s


def results(studies: Studies) -> list[tuple[int, float]]:
    """Budgets and values of the only trial."""
    return [(rung["budget"], rung["value"]) for rung in studies.trial(0)["status"]["rungs"]]


def test_a_sidecar_that_is_killed_is_started_again_and_nothing_is_lost_or_twice(
    studies: Studies, operator: OperatorProcess, lab: Cluster
) -> None:
    begin(studies)
    tell(studies, 1)
    eventually(lambda: studies.metric("halvard_pushes_total", result="accepted") >= 1)
    kill_sidecar(operator)
    tell(studies, 2)
    studies.wait("pod/search-0000-1", "jsonpath={.status.initContainerStatuses[0].restartCount}=1")
    eventually(lambda: studies.metric("halvard_pushes_total", result="accepted") >= 2)
    tell(studies, 3)
    finish(studies)
    status = studies.trial(0)["status"]
    assert results(studies) == [(3, 1 / 3)]
    assert [point["step"] for point in status["curve"]] == [1, 2, 3]
    assert (status["faults"], studies.pods_of(0)) == (0, ["search-0000-1"])


def test_where_the_sidecar_cannot_be_kept_alive_the_leg_runs_again(
    studies: Studies, operator: OperatorProcess, lab: Cluster
) -> None:
    begin(studies)
    eventually(lambda: kill_until_it_stays_away(studies, operator))
    for step in (1, 2, 3):
        tell(studies, step)
    studies.wait("pod/search-0000-2", "condition=Ready")
    status = studies.trial(0)["status"]
    assert (status.get("rungs", []), status["faults"]) == ([], 1)
    for step in (1, 2, 3):
        tell(studies, step, "search-0000-2")
    finish(studies, "search-0000-2")
    assert results(studies) == [(3, 1 / 3)]


def test_a_pod_that_is_deleted_with_no_grace_runs_again(studies: Studies) -> None:
    begin(studies)
    tell(studies, 1)
    eventually(lambda: studies.metric("halvard_pushes_total", result="accepted") >= 1)
    studies.kubectl("delete", "pod", "search-0000-1", "--force", "--grace-period=0")
    studies.wait("pod/search-0000-2", "condition=Ready")
    for step in (1, 2, 3):
        tell(studies, step, "search-0000-2")
    finish(studies, "search-0000-2")
    status = studies.trial(0)["status"]
    assert (results(studies), status["faults"]) == ([(3, 1 / 3)], 1)


@contextlib.contextmanager
def cut_off(studies: Studies, pod: str) -> Iterator[None]:
    """Whatever this Pod sends is lost."""
    address = studies.get("pod", pod)["status"]["podIP"]
    run("nft", "add", "table", "ip", "halvard-cut")
    try:
        hook = "{ type filter hook prerouting priority -300 ; }"
        run("nft", "add", "chain", "ip", "halvard-cut", "cut", *hook.split())
        run("nft", "add", "rule", "ip", "halvard-cut", "cut", "ip", "saddr", address, "drop")
        yield
    finally:
        run("nft", "delete", "table", "ip", "halvard-cut")


def test_what_is_reported_while_the_pods_network_is_cut_arrives_once_it_is_back(studies: Studies, lab: Cluster) -> None:
    begin(studies)
    tell(studies, 1)
    eventually(lambda: studies.metric("halvard_pushes_total", result="accepted") >= 1)
    with cut_off(studies, "search-0000-1"):
        tell(studies, 2)
        eventually(lambda: "not acknowledged, trying again" in studies.logs("search-0000-1", "halvard-collector"))
        assert "rungs" not in studies.trial(0)["status"] or not results(studies)
    eventually(lambda: studies.metric("halvard_pushes_total", result="accepted") >= 2)
    tell(studies, 3)
    finish(studies)
    assert results(studies) == [(3, 1 / 3)]
    assert studies.pods_of(0) == ["search-0000-1"]


def test_a_result_from_a_pod_whose_network_never_comes_back_arrives_by_its_status(
    studies: Studies, lab: Cluster
) -> None:
    begin(studies)
    with cut_off(studies, "search-0000-1"):
        for step in (1, 2, 3):
            tell(studies, step)
        finish(studies)
    status = studies.trial(0)["status"]
    assert (results(studies), status["faults"]) == ([(3, 1 / 3)], 0)

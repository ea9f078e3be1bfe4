"""Reports that are no reports, and reports of others: each has one meaning, is counted, and stalls nothing."""

import pytest

from e2e.pushes import door_of, push, token
from e2e.studies import CONFINED, UNPRIVILEGED, Manifest, Studies, python, study, template
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

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard import faults
from halvard.observe import observe
from halvard.pods import COLLECTOR
from halvard_trainer.reports import Report
from podstatus import BEGUN, DISTURBED, ENDED, beside, condition, exited, pod

RUNNING = {"running": {"startedAt": BEGUN}}
MESSAGE = '{"step":3,"metrics":{"val_loss":0.25,"bad":"NaN"},"checkpoint":"step-3"}'
TAINTED = condition("DisruptionTarget", "DeletionByTaintManager")


def seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def waiting(name: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}


def collector(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": COLLECTOR, "state": state}]


def test_a_pod_says_whose_it_is() -> None:
    view = observe(pod(RUNNING, phase="Running"))
    assert (view.name, view.namespace, view.uid, view.version) == ("digits-0003-2", "team-a", "0a1b", "77")
    assert (view.study, view.trial, view.attempt) == ("digits", "digits-0003", 2)
    assert (view.node, view.template, view.gpus) == ("node-1", "abcdef0123", 1.0)


def test_a_running_trainer_has_started_and_not_ended() -> None:
    view = observe(pod(RUNNING, phase="Running", initContainerStatuses=collector(RUNNING)))
    assert (seconds(BEGUN), None) == (view.started_at, view.ended_at)
    assert (view.lost, view.deleting, view.drained, view.stuck) == (False, False, False, None)


def test_the_trainer_ends_the_attempt_while_its_sidecar_keeps_the_phase_running() -> None:
    view = observe(pod(exited(1), phase="Running", initContainerStatuses=collector(RUNNING)))
    assert (seconds(BEGUN), seconds(ENDED)) == (view.started_at, view.ended_at)
    assert view.fault.reason == faults.NON_ZERO_EXIT


def test_a_pod_is_drained_once_its_sidecar_has_ended_too() -> None:
    assert not observe(pod(exited(0), phase="Running", initContainerStatuses=collector(RUNNING))).drained
    assert observe(pod(exited(0), phase="Running", initContainerStatuses=collector(exited(0)))).drained
    assert observe(pod(exited(0), phase="Succeeded", initContainerStatuses=collector(RUNNING))).drained


def test_a_sidecar_killed_while_the_trainer_runs_is_ignored() -> None:
    view = observe(pod(RUNNING, phase="Running", initContainerStatuses=collector(exited(137))))
    assert (view.ended_at, view.drained) == (None, False)


def test_a_failed_pod_whose_container_was_never_created_has_ended_at_its_last_change() -> None:
    view = observe(pod(reason="UnexpectedAdmissionError", conditions=[condition("PodScheduled", "")]))
    assert (None, seconds(DISTURBED)) == (view.started_at, view.ended_at)


def test_a_container_that_could_not_be_executed_never_started() -> None:
    state = {
        "terminated": {
            "exitCode": 128,
            "reason": "StartError",
            "startedAt": "1970-01-01T00:00:00Z",
            "finishedAt": ENDED,
        }
    }
    assert observe(pod(state)).started_at is None


def test_a_pod_on_a_node_out_of_reach_is_lost() -> None:
    view = observe(pod(RUNNING, phase="Running", conditions=[TAINTED], deleted=DISTURBED))
    assert view.lost
    assert (view.fault.reason, view.fault.counted) == (faults.DISRUPTED, False)
    assert view.ended_at is None


def test_a_pod_being_deleted_is_not_lost_while_its_node_ends_it() -> None:
    view = observe(pod(RUNNING, phase="Running", deleted=DISTURBED))
    assert (view.deleting, view.lost, view.ended_at) == (True, False, None)


def test_a_lost_pod_that_ended_after_all_is_no_longer_lost() -> None:
    assert not observe(pod(exited(143), conditions=[TAINTED], deleted=DISTURBED)).lost


def test_a_pod_whose_sidecar_was_still_draining_on_a_node_out_of_reach_is_lost() -> None:
    draining = collector(RUNNING)
    cut_off = pod(exited(0), phase="Running", conditions=[TAINTED], deleted=DISTURBED, initContainerStatuses=draining)
    view = observe(cut_off)
    assert (view.lost, view.drained, view.fault.reason) == (True, False, faults.DISRUPTED)


@pytest.mark.parametrize("state", [RUNNING, {"waiting": {"reason": "ImagePullBackOff"}}, {}])
@pytest.mark.parametrize("sidecar", [RUNNING, {"waiting": {"reason": "CrashLoopBackOff"}}])
def test_a_pod_is_left_behind_where_another_container_goes_on(state: dict[str, Any], sidecar: dict[str, Any]) -> None:
    view = observe(beside(pod(exited(1), phase="Running", initContainerStatuses=collector(sidecar)), state))
    assert (view.left_behind, view.drained, view.fault.reason) == (True, False, faults.NON_ZERO_EXIT)


def test_a_pod_is_not_left_behind_by_a_trainer_that_runs_or_where_all_have_ended() -> None:
    assert not observe(beside(pod(RUNNING, phase="Running"), RUNNING)).left_behind
    draining = pod(exited(1), phase="Running", initContainerStatuses=collector(RUNNING))
    assert not observe(beside(draining, exited(0))).left_behind
    over = observe(beside(pod(exited(1), initContainerStatuses=collector(exited(0))), exited(143)))
    assert (over.left_behind, over.drained) == (False, True)


def test_what_became_of_a_pod_apart_from_its_deletion_is_known() -> None:
    view = observe(pod(exited(1, at=DISTURBED), deleted=DISTURBED))
    assert (view.fault.reason, view.own_fault.reason) == (faults.POD_DELETED, faults.NON_ZERO_EXIT)
    same = observe(pod(exited(1)))
    assert same.own_fault == same.fault


@pytest.mark.parametrize("container", ["trainer", COLLECTOR])
def test_an_image_that_cannot_be_pulled_is_stuck_in_the_kubelets_words(container: str) -> None:
    key = "initContainerStatuses" if container == COLLECTOR else "containerStatuses"
    status: dict[str, Any] = {key: [waiting(container, "ImagePullBackOff", "Back-off pulling image x")]}
    view = observe(pod(phase="Pending", **status))
    assert view.stuck is not None
    assert ("ImagePullBackOff", f"container {container}: Back-off pulling image x") == (
        view.stuck.reason,
        view.stuck.message,
    )


def test_a_container_that_is_being_created_is_not_stuck() -> None:
    view = observe(pod(phase="Pending", containerStatuses=[waiting("trainer", "ContainerCreating")]))
    assert view.stuck is None


def test_a_crashing_sidecar_does_not_make_a_running_trainer_stuck() -> None:
    crashing = [waiting(COLLECTOR, "CrashLoopBackOff")]
    assert observe(pod(RUNNING, phase="Running", initContainerStatuses=crashing)).stuck is None


@pytest.mark.parametrize("reason", ["Unschedulable", "SchedulingGated"])
def test_waiting_for_a_place_is_a_queue_and_no_failure(reason: str) -> None:
    view = observe(pod(phase="Pending", conditions=[condition("PodScheduled", reason, status="False")]))
    assert (view.stuck, view.ended_at) == (None, None)


def test_the_last_report_is_in_the_sidecars_termination_message() -> None:
    earlier = exited(0, message='{"step":2,"metrics":{"val_loss":0.5}}')
    report = observe(pod(earlier, initContainerStatuses=collector(exited(0, message=MESSAGE)))).report
    assert report is not None
    assert (report.step, report.metrics["val_loss"], report.checkpoint) == (3, 0.25, "step-3")
    assert report.metrics["bad"] != report.metrics["bad"]  # NaN


def test_the_trainers_termination_message_will_do_where_the_sidecar_left_none() -> None:
    view = observe(pod(exited(0, message='{"step":2,"metrics":{"val_loss":0.5}}')))
    assert Report(2, {"val_loss": 0.5}) == view.report


@pytest.mark.parametrize(
    "message", ["", "done", "{", '{"step":-1}', "[3]", '{"a":' * 800, '{"step":1,"metrics":{"x":"no"}}']
)
def test_any_other_termination_message_is_no_report(message: str) -> None:
    assert observe(pod(exited(0, message=message))).report is None


def test_a_pod_of_somebody_else_is_nobodys_attempt() -> None:
    view = observe({"metadata": {"name": "stranger"}})
    assert (view.study, view.trial, view.attempt, view.ended_at, view.report) == ("", "", 0, None, None)


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("digits-0003-2", ("digits", "digits-0003", 2)),
        ("a.b-0-12345-10", ("a.b-0", "a.b-0-12345", 10)),
        ("digits-0003", ("", "", 0)),
        ("digits-0003-02", ("", "", 0)),
        ("digits-0003-two", ("", "", 0)),
        ("digits-3-2", ("", "", 0)),
        ("digits-0003-\u0662", ("", "", 0)),
    ],
)
def test_a_pod_is_whose_its_name_says_whatever_its_labels_say(name: str, whose: tuple[str, str, int]) -> None:
    edited = pod(RUNNING)
    edited["metadata"] |= {"name": name, "labels": {"halvard.dev/trial": "digits-0007", "halvard.dev/attempt": "7"}}
    view = observe(edited)
    assert (view.study, view.trial, view.attempt) == whose


STATES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "running": st.fixed_dictionaries({}, optional={"startedAt": st.just(BEGUN) | st.none()}),
        "waiting": st.fixed_dictionaries({}, optional={"reason": st.text() | st.none()}),
        "terminated": st.fixed_dictionaries(
            {},
            optional={
                "exitCode": st.integers(-1, 300),
                "reason": st.sampled_from(["Error", "OOMKilled", "ContainerStatusUnknown"]) | st.none(),
                "startedAt": st.just(BEGUN) | st.none(),
                "finishedAt": st.just(ENDED) | st.none(),
                "message": st.text() | st.none(),
                "signal": st.integers(0, 80),
            },
        ),
    },
)
STATUSES = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["trainer", COLLECTOR, "other"]), "state": STATES}))
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["DisruptionTarget", "PodScheduled", "Ready"]),
            "status": st.sampled_from(["True", "False"]),
        },
        optional={"reason": st.text(), "message": st.text(), "lastTransitionTime": st.just(DISTURBED) | st.none()},
    )
)


STATUS = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]) | st.none(),
        "reason": st.sampled_from(["", "Evicted", "NodeLost", "OutOfcpu"]) | st.none(),
        "containerStatuses": STATUSES | st.none(),
        "initContainerStatuses": STATUSES | st.none(),
        "conditions": CONDITIONS | st.none(),
    }
)


@given(STATUS, st.sampled_from(["", DISTURBED]))
def test_no_shape_of_status_raises_and_what_did_not_end_never_counts(status: dict[str, Any], deleted: str) -> None:
    view = observe(pod(deleted=deleted, **status))
    over = view.ended_at is not None or view.lost
    assert over or (view.fault.reason in {faults.DISRUPTED, faults.POD_VANISHED} and not view.drained)
    assert deleted or view.own_fault == view.fault


def said(step: int, code: int = 0) -> dict[str, Any]:
    """The state of a container that left a report."""
    return exited(code, message=json.dumps({"step": step, "metrics": {"loss": 0.5}}))


@pytest.mark.parametrize(
    ("trainer", "collector", "step"),
    [
        (said(9), {"state": said(3)}, 3),  # it knows that 3 was not decided yet
        (said(3), {"state": said(2, code=137)}, 3),
        (said(3), {"state": said(4, code=137)}, 4),
        (exited(0), {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": said(3, code=1)}, 3),
        (exited(0), {"state": {"running": {"startedAt": BEGUN}}, "lastState": said(3, code=1)}, None),
        (said(9), {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": said(3, code=1)}, 9),
    ],
)
def test_the_collector_has_the_last_word_where_it_lived_to_say_it(
    trainer: dict[str, Any], collector: dict[str, Any], step: int | None
) -> None:
    report = observe(pod(trainer, phase="Running", initContainerStatuses=[{"name": COLLECTOR, **collector}])).report
    assert (report.step if report else None) == step

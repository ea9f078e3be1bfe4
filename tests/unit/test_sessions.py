"""What a Pod means to its study, and which Pods are."""

from typing import Any

import pytest

from halvard.cache import Cache
from halvard.events import Avoids, Ended, Event, LeftBehind, Outdated, Placed, Reported, Started, Stuck
from halvard.observe import observe
from halvard.pods import COLLECTOR
from halvard.sessions import Session, events_of, unlisted
from halvard.study import Study
from podstatus import BEGUN, DISTURBED, beside, condition, exited, pod
from unit import test_cache as stored

NOW = 1.0
TEMPLATE = "abcdef0123"  # of `podstatus.pod`
RUNNING = {"running": {"startedAt": BEGUN}}
PULLING = [{"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]


def events(manifest: dict[str, Any], *, template: str = TEMPLATE, gone: bool = False) -> list[Event]:
    return list(events_of(observe(manifest), 3, NOW, template, gone=gone))


def homeless(**status: Any) -> dict[str, Any]:
    """A Pod without a node."""
    manifest = pod(phase="Pending", **status)
    del manifest["spec"]["nodeName"]
    return manifest


def test_a_pod_without_a_node_says_nothing() -> None:
    assert events(homeless()) == []


def test_a_pod_with_a_node_has_its_place() -> None:
    assert events(pod(phase="Pending")) == [Placed(3, 2, "node-1")]


def test_a_pod_that_waits_for_a_node_says_which_it_avoids() -> None:
    waits = homeless()
    waits["metadata"]["annotations"]["halvard.dev/avoids"] = "node-1 node-7"
    assert events(waits) == [Avoids(3, 2, ("node-1", "node-7"))]


def test_a_trainer_that_runs_has_a_place_without_saying_so() -> None:
    [started] = events(pod(RUNNING, phase="Running"))
    assert isinstance(started, Started)
    assert started.node == "node-1"


def test_a_pod_of_an_older_template_says_so_while_it_waits() -> None:
    assert events(homeless(), template="another") == [Outdated(3, 2)]
    assert events(pod(phase="Pending"), template="another") == [Placed(3, 2, "node-1")]
    assert len(events(pod(RUNNING, phase="Running"), template="another")) == 1


def test_a_stuck_pod_of_an_older_template_says_so_also_where_it_has_a_node() -> None:
    kinds = [type(event) for event in events(pod(phase="Pending", containerStatuses=PULLING), template="another")]
    assert kinds == [Placed, Stuck, Outdated]


def test_a_pod_that_was_deleted_before_it_had_a_node_has_ended() -> None:
    assert [type(event) for event in events(homeless(), gone=True)] == [Ended]


def test_a_pod_that_was_disrupted_and_is_gone_says_by_whom() -> None:
    preempted = condition("DisruptionTarget", "PreemptionByScheduler")
    *_, ended = events(pod(RUNNING, phase="Running", conditions=[preempted], deleted=DISTURBED), gone=True)
    assert isinstance(ended, Ended)
    assert (ended.fault.reason, ended.fault.message) == ("Disrupted", "PreemptionByScheduler")


def test_a_pod_that_its_trainer_left_behind_says_so_until_it_is_deleted_and_ends_when_all_has_ended() -> None:
    draining = [{"name": COLLECTOR, "state": RUNNING}]
    left = beside(pod(exited(1), phase="Running", initContainerStatuses=draining), RUNNING)
    assert [type(event) for event in events(left)] == [Started, LeftBehind]
    leaving = pod(exited(1), phase="Running", initContainerStatuses=draining, deleted=DISTURBED)
    assert [type(event) for event in events(beside(leaving, RUNNING))] == [Started]
    *_, ended = events(beside(pod(exited(1, at=DISTURBED), deleted=DISTURBED), exited(143)))
    assert isinstance(ended, Ended)
    assert ended.own
    assert (ended.fault.reason, ended.own.reason) == ("PodDeleted", "NonZeroExit")


def test_what_a_pod_left_in_its_termination_message_is_its_own() -> None:
    over = exited(0, message='{"step": 3, "metrics": {"loss": 0.5}, "checkpoint": "step-3"}')
    assert [event.pod for event in events(pod(over)) if isinstance(event, Reported)] == ["0a1b"]


def owned(version: int, **edited: str | None) -> dict[str, Any]:
    """The Pod of attempt 2 of trial 3, which has failed, after its labels were edited."""
    failed = pod(exited(1))
    labels = {**failed["metadata"]["labels"], **{f"halvard.dev/{name}": value for name, value in edited.items()}}
    failed["metadata"] |= {
        "resourceVersion": str(version),
        "labels": {name: value for name, value in labels.items() if value},
        "ownerReferences": [{"kind": "Trial", "uid": "uid-of-digits-0003", "controller": True}],
    }
    return failed


def study_of(cache: Cache, **status: Any) -> Study:
    """A Study of which trial 3 is stored."""
    cache.studies.seen(stored.study(1))
    cache.trials.seen(stored.trial(3, 2, attempt=2, **status))
    item = cache.studies.get(stored.STUDY)
    assert item is not None
    assert isinstance(item.value, Study)
    return item.value


@pytest.mark.parametrize("value", ["7", None])
@pytest.mark.parametrize("label", ["study", "trial", "attempt"])
def test_what_a_pod_says_is_of_its_own_attempt_whatever_its_labels_say(label: str, value: str | None) -> None:
    cache = Cache()
    session = Session(cache, study_of(cache), 1)
    cache.pods.seen(owned(10))
    as_it_was = session.gather(NOW)
    cache.pods.seen(owned(11, **{label: value}))
    assert session.gather(NOW) == as_it_was
    cache.pods.gone(owned(12, **{label: value}))
    assert {(event.trial, event.attempt) for event in session.gather(NOW)} == {(3, 2)}


@pytest.mark.parametrize("label", ["study", "trial", "attempt"])
def test_a_fold_knows_a_pod_whatever_its_labels_say(label: str) -> None:
    cache = Cache()
    cache.pods.seen(owned(10, **{label: None}))
    session = Session(cache, study_of(cache), 1)
    assert list(session.progress.live) == [3]


def test_a_pod_that_should_be_there_and_is_not_known_is_one_to_ask_for() -> None:
    cache = Cache()
    study = study_of(cache, state="Running")
    assert unlisted(cache, study) == ["digits-0003-2"]
    cache.pods.seen(owned(10, study=None))
    assert unlisted(cache, study) == []


@pytest.mark.parametrize("state", ["Pending", "Paused", "Complete"])
def test_where_a_trial_does_not_run_there_is_none_to_ask_for(state: str) -> None:
    cache = Cache()
    assert unlisted(cache, study_of(cache, state=state)) == []

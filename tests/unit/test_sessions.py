"""What a Pod means to its study."""

from typing import Any

from halvard.events import Avoids, Ended, Event, Outdated, Placed, Reported, Started, Stuck
from halvard.observe import observe
from halvard.sessions import events_of
from podstatus import BEGUN, exited, pod

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


def test_what_a_pod_left_in_its_termination_message_is_its_own() -> None:
    over = exited(0, message='{"step": 3, "metrics": {"loss": 0.5}, "checkpoint": "step-3"}')
    assert [event.pod for event in events(pod(over)) if isinstance(event, Reported)] == ["0a1b"]

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import pytest

from halvard import apply, clock
from halvard.apply import POD_NOT_CREATED, Applier, event_manifest, in_order_of_need
from halvard.cache import Cache
from halvard.kube import Conflict, Kube, KubeError, Manifest, NotFound, Resource, Unavailable
from halvard.metrics import Metrics
from halvard.plan import Action, Announce, CreateTrial, Plan, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.pods import PodSettings
from halvard.progress import Live, Progress
from halvard.trial import Trial, TrialSpec, TrialStatus
from podstatus import DISTURBED, pod
from simulation.world import study


def trial(index: int) -> Trial:
    return Trial(name=f"search-{index:04d}", spec=TrialSpec(index=index, budget=1, parameters={}))


def start(index: int) -> StartLeg:
    return StartLeg(trial(index), None)


def test_a_leg_waits_for_the_decision_on_its_own_trial_alone() -> None:
    plan: list[Action] = [CreateTrial(trial(0)), CreateTrial(trial(1)), start(1), start(0)]
    assert in_order_of_need(plan) == [CreateTrial(trial(0)), start(0), CreateTrial(trial(1)), start(1)]


def test_decisions_keep_their_order() -> None:
    plan: list[Action] = [
        SaveStatus(trial(0)),
        SaveSpec(trial(2), hot=False),
        SaveStatus(trial(1)),
        CreateTrial(trial(3)),
        start(2),
        start(3),
    ]
    ordered = in_order_of_need(plan)
    assert [action for action in ordered if not isinstance(action, StartLeg)] == plan[:4]
    assert ordered.index(start(2)) == 2


def test_a_leg_waits_for_the_latest_decision_on_its_trial() -> None:
    plan: list[Action] = [SaveStatus(trial(0)), SaveSpec(trial(0), hot=False), SaveStatus(trial(1)), start(0)]
    assert in_order_of_need(plan) == [
        SaveStatus(trial(0)),
        SaveSpec(trial(0), hot=False),
        start(0),
        SaveStatus(trial(1)),
    ]


def test_a_leg_comes_after_the_attempt_before_it_was_stopped() -> None:
    plan: list[Action] = [StopLeg(trial(0), 1, "stuck"), SaveStatus(trial(1)), start(0)]
    assert in_order_of_need(plan) == [StopLeg(trial(0), 1, "stuck"), start(0), SaveStatus(trial(1))]


def test_a_leg_without_a_decision_in_this_plan_waits_for_nothing() -> None:
    plan: list[Action] = [Announce("Normal", "Resumed", ""), SaveStatus(trial(1)), start(0)]
    assert in_order_of_need(plan) == [start(0), Announce("Normal", "Resumed", ""), SaveStatus(trial(1))]


class Away:
    """An API server that answers the first request with an error, and the others only when nobody waits any more."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, *_: object) -> Manifest:
        self.asked += 1
        try:
            await (asyncio.sleep(0) if self.asked == 1 else asyncio.Event().wait())
        finally:
            raise Unavailable("overloaded", 503)


def applier(server: object, cache: Cache | None = None) -> Applier:
    cache = cache or Cache()
    pods = PodSettings("collector", "https://halvard", "pem")
    return Applier(cast("Kube", server), cache, Metrics(cache), pods, "one")


STOP_TWO = Plan((StopLeg(trial(0), 1, "its attempt is over"), StopLeg(trial(1), 1, "its attempt is over")))


class Shaky(Away):
    """An API server that answers the first request with an error, and the others a moment later."""

    async def get(self, *_: object) -> Manifest:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("overloaded", 503)
        await asyncio.sleep(0.01)
        self.asked += 10
        raise NotFound("not found", 404)


async def test_what_fails_beside_the_decisions_is_raised_and_cancels_nobody() -> None:
    server = Shaky()
    with pytest.raises(Unavailable, match="overloaded"):
        await applier(server).apply(Progress(study()), STOP_TWO)
    assert server.asked == 12
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_is_cancelled_while_something_fails_is_cancelled() -> None:
    server = Away()
    applying = asyncio.create_task(applier(server).apply(Progress(study()), STOP_TWO))
    while server.asked < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    applying.cancel()
    await asyncio.wait([applying])
    assert applying.cancelled()


class Keeping:
    """An API server that keeps what it is told, and counts how often."""

    def __init__(self) -> None:
        self.version = 7

    async def patch(self, *_: object, version: str, **__: object) -> Manifest:
        assert version == str(self.version)
        self.version += 1
        return {"metadata": {"uid": "t", "resourceVersion": str(self.version)}}


async def test_what_is_stored_already_is_not_written_again() -> None:
    server, cache = Keeping(), Cache()
    manifest = {
        "metadata": {"name": "search-0000", "namespace": "default", "uid": "t", "resourceVersion": "7"},
        "spec": {"index": 0, "budget": 1, "parameters": {}},
        "status": {"state": "Running"},
    }
    cache.trials.seen(manifest)
    stored = Trial.from_manifest(manifest)
    progress = Progress(study(), [stored])
    applied = applier(server, cache)
    await applied.apply(progress, Plan((SaveStatus(stored),)))
    assert server.version == 7
    paused = stored.model_copy(update={"status": TrialStatus(state="Paused")})
    await applied.apply(progress, Plan((SaveStatus(paused),)))
    await applied.apply(progress, Plan((SaveStatus(paused),)))
    assert server.version == 8


class Contended:
    """An API server that deletes nothing: what is there was written at the same moment, or is another Pod by now."""

    def __init__(self, *uids: str) -> None:
        self.uids = list(uids)

    async def get(self, *_: object) -> Manifest:
        return {"metadata": {"uid": self.uids.pop(0)}}

    async def delete(self, *_: object) -> None:
        raise Conflict("the object has been modified", exists=False)


STOP = Plan((StopLeg(trial(0), 1, "its attempt is over"),))


async def test_a_pod_that_could_not_be_deleted_at_this_moment_is_not_held_to_be_gone() -> None:
    with pytest.raises(Conflict):
        await applier(Contended("one", "one")).apply(Progress(study()), STOP)


async def test_a_pod_that_has_made_room_for_another_of_its_name_is_gone() -> None:
    assert await applier(Contended("one", "other")).apply(Progress(study()), STOP)


async def test_a_pod_that_is_being_deleted_is_not_deleted_again() -> None:
    going, cache = pod(deleted=DISTURBED), Cache()
    going["metadata"] |= {"name": "search-0000-1", "namespace": "default"}
    cache.pods.seen(going)
    assert await applier(Contended(), cache).apply(Progress(study()), STOP)


class Deleting:
    """An API server with a Pod that is deleted with the first request, whose answer is lost."""

    def __init__(self) -> None:
        self.pod = pod()
        self.pod["metadata"]["uid"] = "one"
        self.asked = 0

    async def get(self, *_: object) -> Manifest:
        return self.pod

    async def delete(self, *_: object) -> None:
        self.asked += 1
        self.pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        raise Unavailable("timed out")


async def test_a_pod_whose_deletion_found_no_answer_is_not_deleted_again() -> None:
    server = Deleting()
    assert await applier(server).apply(Progress(study()), STOP)
    assert server.asked == 1
    assert await applier(server).apply(Progress(study()), STOP)  # not in the cache either
    assert server.asked == 1


class Webhook:
    """An API server that makes Trials, and cannot answer while `failing` says so; `asked`: how often each was to be."""

    def __init__(self, failing: Callable[[str, int], KubeError | None]) -> None:
        self.failing = failing
        self.asked: dict[str, int] = defaultdict(int)
        self.there: dict[str, Manifest] = {}

    async def create(self, _: Resource, __: str, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        self.asked[name] += 1
        if error := self.failing(name, self.asked[name]):
            raise error
        stored = {**manifest, "metadata": {**manifest["metadata"], "uid": "uid", "resourceVersion": "9"}}
        return self.there.setdefault(name, stored)

    async def get(self, _: Resource, __: str, name: str) -> Manifest:
        if name not in self.there:
            raise NotFound("not found", 404)
        return self.there[name]

    async def delete(self, *_: object) -> None:
        raise Unavailable("failed calling webhook", 500)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "PATIENCE", 0.5)
    monkeypatch.setattr(apply, "FIRST_PAUSE", 0.01)


def first_fails(error: KubeError, until: int) -> Callable[[str, int], KubeError | None]:
    return lambda name, time: error if name == "search-0000-1" and time < until else None


TWO = Plan((CreateTrial(trial(0)), start(0), CreateTrial(trial(1)), start(1)))


def decided() -> Progress:
    """A study whose turn has decided on two new trials."""
    progress = Progress(study())
    for index in (0, 1):
        progress.trials[index] = trial(index)
        progress.live[index] = Live()
    return progress


async def test_a_pod_that_cannot_be_created_right_now_is_created_a_moment_later() -> None:
    server, progress = Webhook(first_fails(Unavailable("leader changed", 500), until=3)), decided()
    assert await applier(server).apply(progress, TWO)
    assert dict(server.asked) == {"search-0000": 1, "search-0000-1": 3, "search-0001": 1, "search-0001-1": 1}
    assert (progress.block, set(progress.live)) == (None, {0, 1})


async def test_a_pod_that_cannot_be_created_for_longer_waits_and_keeps_nothing_else_from_being_done() -> None:
    server, progress = Webhook(first_fails(Unavailable("failed calling webhook", 500), until=99)), decided()
    applied = applier(server)
    assert not await applied.apply(progress, TWO)
    assert {"search-0001", "search-0001-1"} <= server.there.keys()
    assert set(progress.live) == {1}
    block = progress.block
    assert block is not None
    assert (block.reason, block.message, block.delay) == (POD_NOT_CREATED, "failed calling webhook", 1.0)
    before = server.asked["search-0000-1"]
    for delay in (2.0, 4.0):
        block.probe(block.until)
        assert not await applied.apply(progress, Plan((start(0),)))
        block = progress.block
        assert block is not None
        assert block.delay == delay
    assert server.asked["search-0000-1"] == before + 2  # once each time that it is tried again


async def test_a_server_that_says_when_to_come_again_is_left_alone_until_then() -> None:
    server, progress = Webhook(first_fails(Unavailable("too many requests", 429, 30.0), until=99)), decided()
    now = clock.now()
    assert not await applier(server).apply(progress, TWO)
    assert server.asked["search-0000-1"] == 1
    assert progress.block is not None
    assert progress.block.until >= now + 30.0


async def test_a_pod_that_was_created_although_the_answer_was_another_is_there() -> None:
    server, progress = Webhook(first_fails(Unavailable("timed out", 504), until=99)), decided()
    owners = [{"uid": "uid", "controller": True}]
    metadata = {"name": "search-0000-1", "namespace": "default", "uid": "pod", "resourceVersion": "8"}
    server.there["search-0000-1"] = {"metadata": {**metadata, "ownerReferences": owners}}
    assert not await applier(server).apply(progress, TWO)  # so the next turn hears what it says
    assert (progress.block, set(progress.live)) == (None, {0, 1})


async def test_a_server_that_answers_nothing_at_all_is_no_trouble_of_the_study() -> None:
    class Gone(Webhook):
        async def get(self, *_: object) -> Manifest:
            raise Unavailable("no answer")

    progress = decided()
    with pytest.raises(Unavailable, match="no answer"):
        await applier(Gone(first_fails(Unavailable("no answer"), until=99))).apply(progress, TWO)
    assert progress.block is None


async def test_a_pod_that_the_server_fails_to_delete_is_kept_until_it_can() -> None:
    going, cache, progress = pod(), Cache(), Progress(study())
    going["metadata"] |= {"name": "search-0000-1", "namespace": "default"}
    cache.pods.seen(going)
    server = Webhook(lambda _name, _time: None)
    server.there["search-0000-1"] = going
    progress.leaving[0, 1] = float("inf")
    applied = applier(server, cache)
    assert await applied.apply(progress, STOP)
    assert applied.not_deleted(progress) == "failed calling webhook"


async def test_a_pod_that_is_stopped_in_the_turn_that_starts_it_is_deleted_once_it_is_there() -> None:
    class Slow(Webhook):
        async def create(self, resource: Resource, namespace: str, manifest: Manifest) -> Manifest:
            await asyncio.sleep(0.01)
            return await super().create(resource, namespace, manifest)

        async def delete(self, *_: object) -> None:
            deleted.append(list(self.there))

    deleted = list[list[str]]()
    progress = Progress(study())
    progress.trials[0] = trial(0)
    assert await applier(Slow(lambda _name, _time: None)).apply(progress, Plan((start(0), *STOP.actions)))
    assert deleted == [["search-0000-1"]]


async def test_a_pod_that_was_stopped_before_it_was_there_may_be_asked_to_leave_again() -> None:
    progress = Progress(study())
    progress.leaving[0, 1] = float("inf")
    assert await applier(Webhook(lambda _name, _time: None)).apply(progress, STOP)
    assert progress.leaving == {}


async def test_an_event_is_cut_by_its_bytes() -> None:
    note = event_manifest(study(), Announce("Warning", "TrialFailed", "数据" * 500), "one")["note"]
    assert (len(note.encode()), note) == (1023, ("数据" * 500)[:341])

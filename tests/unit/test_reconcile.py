"""Turns of a study on an API server that fails where a test says so."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from halvard import apply, clock, inbox, reconcile
from halvard.apply import Applier
from halvard.cache import Cache
from halvard.identity import PodIdentity
from halvard.inbox import Inbox
from halvard.kube import (
    PODS,
    STUDIES,
    TRIALS,
    Conflict,
    Kube,
    KubeError,
    Manifest,
    NotFound,
    Page,
    Refused,
    Resource,
    Unavailable,
)
from halvard.metrics import Metrics
from halvard.pods import PodSettings
from halvard.reconcile import Reconciler
from halvard_trainer.reports import Report

KEY = ("team-a", "search")
BEGUN = "2026-01-01T00:00:00Z"
POD = "search-0000-1"


def nothing(_verb: str, _resource: Resource) -> KubeError | None:
    return None


class Server:
    """Objects in memory. `asked`: which requests were made; `fails` says which of them end with what error.

    It is asked once more ("created") when an object was created.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, str], Manifest] = {}
        self.fails: Callable[[str, Resource], KubeError | None] = nothing
        self.asked: list[tuple[str, Resource]] = []
        self.listed = self.objects  # what lists show
        self._numbers = itertools.count(100)

    async def get(self, resource: Resource, _namespace: str, name: str) -> Manifest:
        await self._ask("get", resource)
        if (resource, name) not in self.objects:
            raise NotFound(f"{name} not found", 404)
        return copy.deepcopy(self.objects[resource, name])

    async def pages(self, resource: Resource, _namespace: str = "", _selector: str = "") -> AsyncIterator[Page]:
        await self._ask("list", resource)
        items = [copy.deepcopy(item) for (kind, _), item in self.listed.items() if kind == resource]
        yield Page(items, next(self._numbers))

    async def create(self, resource: Resource, namespace: str, manifest: Manifest) -> Manifest:
        await self._ask("create", resource)
        number, name = next(self._numbers), manifest["metadata"].get("name", "")
        if (resource, name) in self.objects:
            raise Conflict(f"{name} already exists", exists=True)
        stored = copy.deepcopy(manifest)
        made = {"namespace": namespace, "uid": f"uid-{number}", "resourceVersion": str(number), "generation": 1}
        stored["metadata"] |= {**made, "creationTimestamp": BEGUN}
        self.objects[resource, name] = stored
        if error := self.fails("created", resource):
            raise error
        return copy.deepcopy(stored)

    async def patch(self, resource: Resource, _: str, name: str, *, version: str, part: str, value: Any) -> Manifest:
        await self._ask("patch", resource)
        return self.write(resource, name, version, **{part: value})

    async def delete(self, resource: Resource, _namespace: str, name: str, _uid: str) -> None:
        await self._ask("delete", resource)
        del self.objects[resource, name]

    def write(self, resource: Resource, name: str, version: str = "", **parts: Any) -> Manifest:
        stored = self.objects[resource, name]
        if version and stored["metadata"]["resourceVersion"] != version:
            raise Conflict("the object has been modified", exists=False)
        stored["metadata"]["resourceVersion"] = str(next(self._numbers))
        stored |= copy.deepcopy(parts)
        return copy.deepcopy(stored)

    async def _ask(self, verb: str, resource: Resource) -> None:
        await asyncio.sleep(0)
        self.asked.append((verb, resource))
        if error := self.fails(verb, resource):
            raise error


class Operator:
    """What turns the crank of the one Study that there is."""

    def __init__(self) -> None:
        self.server, self.cache = Server(), Cache()
        self.inbox, metrics = Inbox(self.cache, lambda _: None), Metrics(self.cache)
        kube, pods = cast("Kube", self.server), PodSettings("collector", "https://halvard", "pem")
        self.turn = Reconciler(kube, self.cache, self.inbox, Applier(kube, self.cache, metrics, pods, "one"), metrics)

    async def apply(self, **spec: Any) -> None:
        """Somebody applies the Study."""
        trainer = {"name": "trainer", "image": "none"}
        whole = {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "float": {"min": 0.1, "max": 1.0}}],
            "scheduler": {"asha": {"minBudget": 1, "maxBudget": 9}},
            "parallelism": 1,
            "limits": {"trials": 10},
            "template": {"spec": {"containers": [trainer]}},
            **spec,
        }
        manifest = {"apiVersion": STUDIES.api_version, "kind": "Study", "metadata": {"name": "search"}, "spec": whole}
        self.cache.studies.seen(await self.server.create(STUDIES, "team-a", manifest))

    def runs(self) -> PodIdentity:
        """The kubelet says that the first Pod of the first trial runs."""
        states = [{"name": "trainer", "state": {"running": {"startedAt": BEGUN}}}]
        pod = self.server.write(PODS, POD, status={"phase": "Running", "containerStatuses": states})
        self.cache.pods.seen(pod)
        return PodIdentity("team-a", POD, pod["metadata"]["uid"])

    async def running(self) -> PodIdentity:
        """The study as it is once its first Pod runs."""
        await self.apply()
        await self.turn(KEY)
        await self.turn(KEY)
        pod = self.runs()
        await self.turn(KEY)
        return pod

    async def push_in_vain(self, pod: PodIdentity) -> None:
        """A result is pushed, and cannot be stored."""
        self.server.fails = lambda verb, _: Unavailable("overloaded", 503) if verb == "patch" else None
        await self.inbox.push(pod, [Report(1, {"loss": 0.5}, "step-1")], 1.0)
        with pytest.raises(Unavailable):
            await self.turn(KEY)
        self.server.fails = nothing

    async def turn_broken_off(self) -> None:
        """A turn that creates the first Pod, and from then on has no answers."""

        def fails(_verb: str, _resource: Resource) -> KubeError | None:
            return Unavailable("no answer") if (PODS, POD) in self.server.objects else None

        self.server.fails = fails
        with pytest.raises(Unavailable):
            await self.turn(KEY)
        self.server.fails = nothing

    def trial(self) -> Manifest:
        return self.server.objects[TRIALS, "search-0000"]

    def study(self) -> Manifest:
        return self.server.objects[STUDIES, "search"]


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(inbox, "PATIENCE", 0.01)
    monkeypatch.setattr(apply, "PATIENCE", 0.01)
    monkeypatch.setattr(apply, "FIRST_PAUSE", 0.005)
    return Operator()


async def test_what_could_not_be_stored_is_no_result_of_another_study_of_that_name(operator: Operator) -> None:
    await operator.push_in_vain(await operator.running())
    operator.server.objects.clear()  # kubectl replace --force
    await operator.apply(parameters=[{"name": "lr", "float": {"min": 5.0, "max": 6.0}}])
    await operator.turn_broken_off()
    await operator.turn(KEY)
    await operator.turn(KEY)
    assert operator.trial()["spec"]["parameters"]["lr"] >= 5.0
    assert "rungs" not in operator.trial().get("status", {})
    assert "best" not in operator.study()["status"]


async def test_what_could_not_be_stored_is_no_result_of_another_pod_that_has_its_number(operator: Operator) -> None:
    await operator.push_in_vain(await operator.running())
    operator.cache.pods.gone(operator.server.objects.pop((PODS, POD)))  # by force, and its Running was not stored
    await operator.turn_broken_off()
    await operator.turn(KEY)
    assert (PODS, POD) in operator.server.objects
    assert "rungs" not in operator.trial().get("status", {})


async def test_what_could_not_be_stored_is_kept_once_and_decided_on_when_it_can_be(operator: Operator) -> None:
    pod = await operator.running()
    for _ in range(5):
        await operator.push_in_vain(pod)
    kept = operator.inbox.take(KEY)
    assert len(kept) == 2
    operator.inbox.give_back(KEY, kept)
    await operator.turn(KEY)
    assert [result["value"] for result in operator.trial()["status"]["rungs"]] == [0.5]


async def test_a_pod_that_the_server_fails_to_create_again_and_again_is_a_condition_in_its_words(
    operator: Operator,
) -> None:
    words = 'Internal error occurred: failed calling webhook "x": connection refused'

    def fails(verb: str, resource: Resource) -> KubeError | None:
        return Unavailable(words, 500) if (verb, resource) == ("create", PODS) else None

    await operator.apply(parallelism=2)
    operator.server.fails = fails
    await operator.turn(KEY)
    [condition] = operator.study()["status"]["conditions"]
    assert (condition["type"], condition["reason"], condition["message"]) == ("Degraded", "PodNotCreated", words)
    asked = len(operator.server.asked)
    again = await operator.turn(KEY)
    assert again is not None
    assert again > 0.5
    assert len(operator.server.asked) == asked  # neither lists nor another try before its time
    operator.server.fails = nothing
    await asyncio.sleep(again)
    await operator.turn(KEY)
    await operator.turn(KEY)
    assert len([name for resource, name in operator.server.objects if resource == PODS]) == 2


async def test_a_study_whose_trials_are_not_stored_says_so_once_that_has_gone_on_for_a_while(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()

    async def turn_after(seconds: float, error: KubeError) -> str:
        nonlocal now
        now += seconds
        operator.server.fails = lambda verb, resource: error if (verb, resource) == ("patch", TRIALS) else None
        with pytest.raises(type(error)):
            await operator.turn(KEY)
        conditions = operator.study()["status"]["conditions"]
        return next((each["reason"] for each in conditions if each["type"] == "Degraded"), "")

    pod = await operator.running()
    await operator.inbox.push(pod, [Report(1, {"loss": 0.5}, "step-1")], 1.0)
    monkeypatch.setattr(reconcile, "clock", SimpleNamespace(now=lambda: now))
    assert await turn_after(0, Unavailable("failed calling webhook", 500)) == ""
    assert await turn_after(9, Unavailable("failed calling webhook", 500)) == ""
    assert await turn_after(1, Unavailable("failed calling webhook", 500)) == "TrialNotStored"
    assert await turn_after(1, Refused("no", 403)) == "TrialRefused"  # an answer
    assert await turn_after(1, Unavailable("failed calling webhook", 500)) == "TrialRefused"
    assert await turn_after(10, Unavailable("failed calling webhook", 500)) == "TrialNotStored"
    operator.server.fails = nothing
    await operator.turn(KEY)
    assert [result["value"] for result in operator.trial()["status"]["rungs"]] == [0.5]


async def test_a_trial_of_which_nobody_knew_whether_it_was_stored_is_known_whatever_the_next_list_shows(
    operator: Operator,
) -> None:
    pod = await operator.running()

    def answers_are_lost(verb: str, resource: Resource) -> KubeError | None:
        return Unavailable("no answer") if (verb, resource) == ("created", TRIALS) else None

    operator.cache.studies.seen(
        operator.server.write(STUDIES, "search", spec=operator.study()["spec"] | {"parallelism": 2})
    )
    operator.server.fails, operator.server.listed = answers_are_lost, copy.deepcopy(operator.server.objects)
    with pytest.raises(Unavailable):
        await operator.turn(KEY)
    operator.server.fails = nothing
    await operator.inbox.push(pod, [Report(1, {"loss": 0.5}, "step-1")], 1.0)
    await operator.turn(KEY)
    [result] = operator.trial()["status"]["rungs"]
    assert result["order"] > operator.server.objects[TRIALS, "search-0001"]["spec"]["order"]


@pytest.mark.parametrize("field", ["labels", "ownerReferences"])
async def test_a_trial_that_got_back_what_made_it_the_studys_is_one_of_its_again(
    operator: Operator, field: str
) -> None:
    def edit(value: Any) -> None:
        metadata = {**operator.trial()["metadata"], field: value}
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1000)
        operator.cache.trials.seen(operator.server.write(TRIALS, "search-0000", metadata=metadata))

    await operator.apply(parallelism=3)
    await operator.turn(KEY)
    kept = operator.trial()["metadata"][field]
    edit(type(kept)())
    await operator.turn(KEY)
    edit(kept)
    await operator.turn(KEY)
    pod = operator.runs()
    await operator.turn(KEY)
    await operator.inbox.push(pod, [Report(1, {"loss": 0.5}, "step-1")], 1.0)
    await operator.turn(KEY)
    assert [result["value"] for result in operator.trial()["status"]["rungs"]] == [0.5]


async def test_a_deletion_that_was_refused_at_the_end_of_a_study_is_asked_for_again(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "DELETE_AGAIN", 0.01)
    await operator.running()
    operator.server.fails = lambda verb, _: Refused("pods is forbidden", 403) if verb == "delete" else None
    operator.server.write(STUDIES, "search", spec={**operator.study()["spec"], "suspend": True})
    operator.cache.studies.seen(operator.server.objects[STUDIES, "search"])
    for _ in range(3):
        again = await operator.turn(KEY)
        assert again is not None
        await asyncio.sleep(again)
    assert operator.server.asked.count(("delete", PODS)) == 3

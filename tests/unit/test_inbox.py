import asyncio

import pytest

from halvard import inbox as module
from halvard.cache import Cache, Cached
from halvard.endpoint import Answer, UnknownPod
from halvard.events import Reported, Started
from halvard.identity import PodIdentity, Unavailable
from halvard.inbox import Inbox
from halvard.kube import Manifest
from halvard.plan import Verdict
from halvard.queue import Key
from halvard.study import Study
from halvard_trainer.reports import Report

STUDY = ("team-a", "digits")
POD = PodIdentity("team-a", "digits-0003-1", "pod")


def manifest(kind: str, name: str, uid: str, owner: str, spec: Manifest, **labels: str) -> Manifest:
    metadata = {"name": name, "namespace": "team-a", "uid": uid, "resourceVersion": "10", "generation": 1}
    owners = [{"uid": owner, "controller": True}]
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            **metadata,
            "labels": {f"halvard.dev/{k}": v for k, v in labels.items()},
            "ownerReferences": owners,
        },
        "spec": spec,
    }


def study(**changes: object) -> Manifest:
    spec = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": [{"name": "lr", "float": {"min": 0.1, "max": 1.0}}],
        "scheduler": {"asha": {"maxBudget": 9}},
        "limits": {"trials": 10},
        "template": {"spec": {"containers": [{"name": "trainer", "image": "none"}]}},
    }
    return manifest("Study", "digits", "study", "", {**spec, **changes})


def trial(version: int = 10, budget: int = 3, **status: object) -> Manifest:
    spec = {"index": 3, "budget": budget, "parameters": {"lr": 0.5}}
    made = manifest("Trial", "digits-0003", "trial", "study", spec, study="digits")
    made["metadata"]["resourceVersion"] = str(version)
    return {**made, "status": status}


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.studies.seen(study())
    cache.trials.seen(trial())
    labels = {"study": "digits", "trial": "digits-0003", "attempt": "1"}
    cache.pods.seen(manifest("Pod", "digits-0003-1", "pod", "trial", {}, **labels))
    return cache


def report(step: int) -> Report:
    return Report(step, {"loss": 0.5})


async def test_a_report_below_the_budget_is_answered_at_once(cache: Cache) -> None:
    woken: list[Key] = []
    inbox = Inbox(cache, woken.append)
    assert await inbox.push(POD, [report(1), report(2)], 3) == Answer(budget=3)
    assert woken == [STUDY]
    started, *reported = inbox.take(STUDY).values()
    assert isinstance(started, Started)
    told = [(e.trial, e.attempt, e.pod, e.at - started.at, e.report.step) for e in reported if isinstance(e, Reported)]
    assert told == [(3, 1, "pod", 3, 1), (3, 1, "pod", 3, 2)]
    assert inbox.take(STUDY) == {}


@pytest.mark.parametrize(("pod", "stored"), [("pod", 2), ("another", 0)])
async def test_a_pod_hears_which_of_its_own_checkpoints_is_stored(cache: Cache, pod: str, stored: int) -> None:
    manifest = trial(11)
    manifest["status"]["checkpoint"] = {"name": "step-2", "step": 2, "attempt": 1, "pod": pod}
    cache.trials.seen(manifest)
    assert await Inbox(cache, lambda _: None).push(POD, [report(1)], 3) == Answer(budget=3, stored=stored)


async def test_a_report_at_the_budget_waits_for_its_verdict(cache: Cache) -> None:
    inbox = Inbox(cache, lambda _: None)
    pushed = asyncio.create_task(inbox.push(POD, [report(3)], 3))
    await asyncio.sleep(0)
    inbox.settle(STUDY, lambda _trial, _attempt, _step: None)
    assert not pushed.done()
    inbox.settle(STUDY, lambda trial, attempt, step: Verdict(step, budget=9) if (trial, attempt) == (3, 1) else None)
    assert await pushed == Answer(budget=9)


@pytest.mark.parametrize("verdict", [Verdict(4, budget=9), Verdict(4, stop="stopped: the value at step 4 is worse")])
async def test_where_every_report_may_be_the_last_one_that_decides_waits_for_what_follows_from_it(
    cache: Cache, verdict: Verdict
) -> None:
    spec = study(scheduler={"median": {"budget": 9, "interval": 2}})
    spec["metadata"]["resourceVersion"] = "20"
    cache.studies.seen(spec)
    cache.trials.seen(trial(11, budget=9))
    inbox = Inbox(cache, lambda _: None)
    assert await inbox.push(POD, [report(1)], 3) == Answer(budget=9)  # between two intervals
    pushed = asyncio.create_task(inbox.push(POD, [report(3), report(4)], 3))
    await asyncio.sleep(0)
    assert not pushed.done()
    inbox.settle(STUDY, lambda _trial, _attempt, _step: verdict)
    assert await pushed == Answer(budget=verdict.budget, stop=verdict.stop)


async def test_a_verdict_that_does_not_come_is_pending(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    inbox = Inbox(cache, lambda _: None)
    assert await inbox.push(POD, [report(3)], 3) == Answer()


async def test_an_attempt_that_is_over_is_told_why_and_not_believed(cache: Cache) -> None:
    cache.trials.seen(trial(11, state="Paused", attempt=2, message="paused: place 4 of 6"))
    inbox = Inbox(cache, lambda _: None)
    answer = await inbox.push(POD, [report(3)], 3)
    assert answer == Answer(stop="paused: place 4 of 6", superseded=True)
    assert inbox.take(STUDY) == {}


async def test_a_pod_that_is_not_known_is_refused(cache: Cache) -> None:
    with pytest.raises(UnknownPod, match="team-a/other runs no trial"):
        await Inbox(cache, lambda _: None).push(PodIdentity("team-a", "other", "other"), [report(3)], 3)


async def test_a_pod_that_only_bears_the_labels_is_refused(cache: Cache) -> None:
    labels = {"study": "digits", "trial": "digits-0003", "attempt": "1"}
    cache.pods.seen(manifest("Pod", "forged", "forged", "somebody", {}, **labels))
    with pytest.raises(UnknownPod):
        await Inbox(cache, lambda _: None).push(PodIdentity("team-a", "forged", "forged"), [report(3)], 3)


@pytest.mark.parametrize("labels", [{}, {"study": "other", "trial": "digits-0007", "attempt": "7"}])
async def test_a_pod_whose_labels_were_edited_reports_for_its_own_attempt(cache: Cache, labels: dict[str, str]) -> None:
    edited = manifest("Pod", "digits-0003-1", "pod", "trial", {}, **labels)
    edited["metadata"]["resourceVersion"] = "11"
    cache.pods.seen(edited)
    inbox = Inbox(cache, lambda _: None)
    assert await inbox.push(POD, [report(1)], 3) == Answer(budget=3)
    assert {(event.trial, event.attempt) for event in inbox.take(STUDY).values()} == {(3, 1)}


async def test_a_trial_of_an_earlier_study_of_that_name_is_refused(cache: Cache) -> None:
    item = cache.studies.get(STUDY)
    assert item is not None
    assert isinstance(item.value, Study)
    cache.studies.put(Cached("team-a", "digits", "another", 20, "digits", "", item.value))
    with pytest.raises(UnknownPod):
        await Inbox(cache, lambda _: None).push(POD, [report(3)], 3)


async def test_reports_for_a_study_that_is_not_valid_are_asked_for_again(cache: Cache) -> None:
    broken = study(scheduler={"asha": {"minBudget": 9, "maxBudget": 3}})
    broken["metadata"]["resourceVersion"] = "20"
    cache.studies.seen(broken)
    with pytest.raises(Unavailable, match="is not valid"):
        await Inbox(cache, lambda _: None).push(POD, [report(3)], 3)


async def test_who_waits_for_a_study_that_is_deleted_is_told_to_stop(cache: Cache) -> None:
    inbox = Inbox(cache, lambda _: None)
    pushed = asyncio.create_task(inbox.push(POD, [report(3)], 3))
    await asyncio.sleep(0)
    inbox.drop(STUDY, "the study is being deleted")
    assert await pushed == Answer(stop="the study is being deleted")


async def test_while_nothing_is_stored_only_so_many_reports_wait(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 4)
    inbox = Inbox(cache, lambda _: None)
    await inbox.push(POD, [report(1)], 3)
    for _ in range(3):
        assert await inbox.push(POD, [report(1)], 3) == Answer(budget=3)  # nothing new
        inbox.give_back(STUDY, inbox.take(STUDY))
    with pytest.raises(Unavailable, match="2 reports of team-a/digits wait to be stored"):
        await inbox.push(POD, [report(2), report(3), report(4)], 3)
    assert len(inbox.take(STUDY)) == 2
    assert await inbox.push(POD, [report(1), report(2)], 3) == Answer(budget=3)


async def test_what_could_not_be_stored_comes_before_what_has_arrived_since_and_only_once(cache: Cache) -> None:
    inbox = Inbox(cache, lambda _: None)
    cache.trials.seen(trial(11, budget=9))
    await inbox.push(POD, [Report(1, {"loss": 0.1}), Report(1, {"loss": 0.2})], 3)
    taken = inbox.take(STUDY)
    await inbox.push(POD, [Report(1, {"loss": 0.3}), Report(2, {"loss": 0.4})], 3)
    inbox.give_back(STUDY, taken)
    started, *reported = inbox.take(STUDY).values()
    assert isinstance(started, Started)
    assert [e.report.metrics["loss"] for e in reported if isinstance(e, Reported)] == [0.1, 0.4]


@pytest.mark.parametrize("successor", ["another Pod", "no Pod", "another study"])
async def test_nothing_is_kept_of_what_a_pod_said_that_is_not_there_any_more(cache: Cache, successor: str) -> None:
    inbox = Inbox(cache, lambda _: None)
    item = cache.studies.get(STUDY)
    assert item is not None
    assert isinstance(item.value, Study)
    await inbox.push(POD, [report(1)], 3)
    inbox.sift(item.value)
    told = inbox.take(STUDY)
    assert len(told) == 2
    inbox.give_back(STUDY, told)
    labels = {"study": "digits", "trial": "digits-0003", "attempt": "1"}
    match successor:
        case "another Pod":
            again = manifest("Pod", "digits-0003-1", "other", "trial", {}, **labels)
            again["metadata"]["resourceVersion"] = "12"
            cache.pods.seen(again)
            inbox.sift(item.value)
        case "no Pod":
            cache.pods.gone(manifest("Pod", "digits-0003-1", "pod", "trial", {}, **labels))
            inbox.sift(item.value)
        case "another study":
            inbox.sift(item.value.model_copy(update={"uid": "another"}))
    assert inbox.take(STUDY) == {}

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from halvard.cache import BrokenStudy, Cache, Cached, Change
from halvard.kube import Manifest, Page, Unavailable
from halvard.observe import PodView
from halvard.queue import Key
from halvard.study import Study

STUDY = ("team-a", "digits")


def trial(index: int, version: int, *, uid: str = "", study: str = "digits", **status: Any) -> Manifest:
    name = f"{study}-{index:04d}"
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": "Trial",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": {"halvard.dev/study": study},
            "ownerReferences": [{"kind": "Study", "uid": f"uid-of-{study}", "controller": True}],
        },
        "spec": {"index": index, "budget": 1, "parameters": {"lr": 0.1}},
        "status": status,
    }


def study(version: int, **spec: Any) -> Manifest:
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": "Study",
        "metadata": {
            "name": "digits",
            "namespace": "team-a",
            "uid": "uid-of-digits",
            "resourceVersion": str(version),
            "generation": 4,
        },
        "spec": {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "float": {"min": 0.1, "max": 1.0}}],
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 10},
            "template": {"spec": {"containers": [{"name": "trainer", "image": "none"}]}},
            **spec,
        },
        "status": {"state": "Running", "trials": {"total": 3}},
    }


async def listed(version: int, *items: Manifest) -> AsyncIterator[Page]:
    yield Page(list(items[:1]), version)
    yield Page(list(items[1:]), version)


async def news_of(cache: Cache, pages: AsyncIterator[Page]) -> set[Key]:
    """The studies for which a list of all Trials is news."""
    news: set[Key] = set()
    await cache.trials.replace(pages, cache.trials.everything(), news=news.add)
    return news


@pytest.fixture
def cache() -> Cache:
    return Cache()


def test_an_object_is_found_by_name_by_uid_and_by_study(cache: Cache) -> None:
    assert cache.trials.seen(trial(3, 10)) == STUDY
    item = cache.trials.get(("team-a", "digits-0003"))
    assert item is not None
    assert cache.trials.by_uid("uid-of-digits-0003") is item
    assert cache.trials.of(STUDY) == [item]
    assert (item.version, item.owner, item.value.index) == (10, "uid-of-digits", 3)


def test_what_is_not_newer_is_no_news(cache: Cache) -> None:
    cache.trials.seen(trial(3, 10, state="Running"))
    assert cache.trials.seen(trial(3, 10, state="Paused")) is None
    assert cache.trials.seen(trial(3, 9, state="Paused")) is None
    assert [item.value.status.state for item in cache.trials.of(STUDY)] == ["Running"]


def test_versions_are_compared_as_numbers(cache: Cache) -> None:
    cache.trials.seen(trial(3, 9))
    assert cache.trials.seen(trial(3, 10)) == STUDY


def test_a_deleted_object_is_not_brought_back_by_an_older_answer(cache: Cache) -> None:
    cache.trials.seen(trial(3, 10))
    assert cache.trials.gone(trial(3, 12)) == STUDY
    assert cache.trials.seen(trial(3, 11)) is None
    assert cache.trials.of(STUDY) == []
    assert cache.trials.by_uid("uid-of-digits-0003") is None


def test_a_name_that_is_used_again_is_another_object(cache: Cache) -> None:
    cache.trials.seen(trial(3, 10, uid="old"))
    cache.trials.changes(STUDY)
    cache.trials.seen(trial(3, 20, uid="new"))
    assert [(change.item.uid, change.gone) for change in cache.trials.changes(STUDY)] == [("old", True), ("new", False)]
    assert cache.trials.by_uid("old") is None


def test_a_deletion_of_an_earlier_object_of_that_name_changes_nothing(cache: Cache) -> None:
    cache.trials.seen(trial(3, 20, uid="new"))
    assert cache.trials.gone(trial(3, 15, uid="old")) is None
    assert [item.uid for item in cache.trials.of(STUDY)] == ["new"]


def test_changes_are_told_once_each_object_with_its_latest(cache: Cache) -> None:
    cache.trials.seen(trial(1, 10))
    cache.trials.seen(trial(2, 11))
    cache.trials.seen(trial(1, 12))
    changes = cache.trials.changes(STUDY)
    assert [(change.item.value.index, change.item.version) for change in changes] == [(1, 12), (2, 11)]
    assert cache.trials.changes(STUDY) == []


def test_a_deletion_is_a_change_that_carries_what_was_said_last(cache: Cache) -> None:
    cache.trials.seen(trial(1, 10))
    cache.trials.gone(trial(1, 12, state="Running", step=7))
    [change] = cache.trials.changes(STUDY)
    assert isinstance(change, Change)
    assert (change.gone, change.item.value.status.step) == (True, 7)


async def test_a_list_finds_what_vanished_unnoticed(cache: Cache) -> None:
    for index in range(3):
        cache.trials.seen(trial(index, 10 + index))
    assert await news_of(cache, listed(20, trial(0, 10), trial(2, 15))) == {STUDY}
    assert [(item.value.index, item.version) for item in cache.trials.of(STUDY)] == [(0, 10), (2, 15)]


async def test_a_list_does_not_take_away_what_was_created_after_it(cache: Cache) -> None:
    cache.trials.seen(trial(5, 30))
    assert await news_of(cache, listed(20)) == set()
    assert [item.value.index for item in cache.trials.of(STUDY)] == [5]


async def test_a_list_without_news_is_none(cache: Cache) -> None:
    cache.trials.seen(trial(0, 10))
    assert await news_of(cache, listed(20, trial(0, 10))) == set()


async def test_a_list_of_one_study_leaves_the_others_alone(cache: Cache) -> None:
    cache.trials.seen(trial(0, 10))
    cache.trials.seen(trial(0, 11, study="other"))
    await cache.trials.replace(listed(20), cache.trials.of(STUDY))
    assert [item.study for item in cache.trials.everything()] == ["other"]


def pod(version: int, *, uid: str = "pod", **labels: str | None) -> Manifest:
    known = {"study": "digits", "trial": "digits-0003", "attempt": "1", **labels}
    return {
        "metadata": {
            "name": "digits-0003-1",
            "namespace": "team-a",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {f"halvard.dev/{name}": value for name, value in known.items() if value},
            "ownerReferences": [{"kind": "Trial", "uid": "uid-of-digits-0003", "controller": True}],
        }
    }


@pytest.mark.parametrize("value", ["another", None])
@pytest.mark.parametrize("label", ["study", "trial", "attempt"])
def test_a_pod_is_of_its_study_whatever_its_labels_say(cache: Cache, label: str, value: str | None) -> None:
    cache.pods.seen(pod(10))
    cache.pods.changes(STUDY)
    assert cache.pods.seen(pod(11, **{label: value})) == STUDY
    assert [(change.item.uid, change.gone) for change in cache.pods.changes(STUDY)] == [("pod", False)]
    assert [(item.value.trial, item.value.attempt) for item in cache.pods.of(STUDY)] == [("digits-0003", 1)]


async def test_a_list_does_not_take_away_what_is_there_when_asked_for(cache: Cache) -> None:
    cache.pods.seen(pod(10))
    answers = [pod(10), pod(19, study=None), None]

    async def ask(_: Cached[PodView]) -> Manifest | None:
        return answers.pop(0)

    cache.pods.ask, news = ask, list[Key]()
    for version in (20, 21):
        await cache.pods.replace(listed(version), cache.pods.of(STUDY), news=news.append)
    assert ([item.version for item in cache.pods.of(STUDY)], news) == ([19], [STUDY])
    await cache.pods.replace(listed(22), cache.pods.of(STUDY), news=news.append)
    assert (cache.pods.of(STUDY), news) == ([], [STUDY, STUDY])


async def test_what_goes_while_it_is_asked_for_is_gone_once(cache: Cache) -> None:
    cache.pods.seen(pod(10))

    async def ask(_: Cached[PodView]) -> None:
        cache.pods.gone(pod(11))

    cache.pods.ask, news = ask, list[Key]()
    await cache.pods.replace(listed(20), cache.pods.of(STUDY), news=news.append)
    assert (cache.pods.of(STUDY), news) == ([], [])


def broken_trial(index: int, version: int) -> Manifest:
    broken = trial(index, version)
    broken["spec"]["budget"] = "many"
    return broken


def test_an_object_that_makes_no_sense_is_news_and_said_and_known_as_it_was(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.trials.seen(trial(1, 9))
    with caplog.at_level(logging.ERROR):
        assert cache.trials.seen(broken_trial(1, 10)) == STUDY
    assert cache.trials.misfit(STUDY).startswith("Trial digits-0001: spec.budget: Input should be a valid integer")
    assert cache.trials.misfit(("team-a", "other")) == ""
    assert cache.trials.misfit(STUDY) in caplog.text
    assert [item.version for item in cache.trials.everything()] == [9]


def test_an_object_that_makes_sense_again_or_is_gone_is_nothing_to_complain_about(cache: Cache) -> None:
    cache.trials.seen(broken_trial(1, 10))
    cache.trials.seen(trial(1, 11))
    cache.trials.seen(broken_trial(2, 12))
    assert cache.trials.gone(broken_trial(2, 13)) == STUDY
    assert cache.trials.misfit(STUDY) == ""
    assert len(cache.trials) == 1


async def test_whether_an_object_still_makes_no_sense_is_what_a_list_says(cache: Cache) -> None:
    for index in (1, 2):
        cache.trials.seen(broken_trial(index, 10))
    await cache.trials.replace(listed(20, broken_trial(2, 10)), cache.trials.of(STUDY), STUDY)
    assert "digits-0002" in cache.trials.misfit(STUDY)
    await cache.trials.replace(listed(21), cache.trials.of(STUDY), STUDY)
    assert cache.trials.misfit(STUDY) == ""


def test_a_trial_that_has_lost_its_label_is_news_for_the_study_that_it_was_of(cache: Cache) -> None:
    cache.trials.seen(trial(1, 10))
    unlabelled = trial(1, 11)
    del unlabelled["metadata"]["labels"]
    assert cache.trials.seen(unlabelled) == STUDY
    assert cache.trials.of(STUDY) == []


def test_fields_of_a_newer_version_are_passed_over(cache: Cache) -> None:
    newer, of_newer = trial(1, 10), study(11, novelty=True)
    for part in ("spec", "status"):
        newer[part]["novelty"] = of_newer[part]["novelty"] = {"deep": 1}
    cache.trials.seen(newer)
    cache.studies.seen(of_newer)
    assert [item.value.index for item in cache.trials.of(STUDY)] == [1]
    item = cache.studies.get(STUDY)
    assert item is not None
    assert isinstance(item.value, Study)
    assert item.value.status.trials.total == 3


def test_of_a_status_that_was_written_by_hand_the_sound_parts_are_kept(cache: Cache) -> None:
    odd = study(10)
    sound = {"type": "Suspended", "status": "False", "reason": "SuspendCleared", "message": "spec.suspend"}
    times = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 4}
    conditions = [{**sound, **times, "type": "Fancy"}, {**sound, **times}]
    odd["status"] |= {"startTime": "2026-01-01T00:00:00Z", "state": "Bored", "conditions": conditions}
    cache.studies.seen(odd)
    item = cache.studies.get(STUDY)
    assert item is not None
    status = item.value.status
    assert status.start_time is not None
    assert (status.state, [condition.type for condition in status.conditions]) == ("Pending", ["Suspended"])


def test_a_study_is_read(cache: Cache) -> None:
    cache.studies.seen(study(10))
    item = cache.studies.get(STUDY)
    assert item is not None
    assert isinstance(item.value, Study)
    assert (item.value.name, item.value.generation, item.value.status.trials.total) == ("digits", 4, 3)


def test_a_study_that_makes_no_sense_says_why_and_keeps_its_status(cache: Cache) -> None:
    cache.studies.seen(study(10, scheduler={"asha": {"minBudget": 9, "maxBudget": 3}}))
    item = cache.studies.get(STUDY)
    assert item is not None
    assert isinstance(item.value, BrokenStudy)
    assert "Budget" in item.value.message
    assert (item.value.generation, item.value.deleting, item.value.status.state) == (4, False, "Running")


def test_a_mended_study_is_read_again(cache: Cache) -> None:
    cache.studies.seen(study(10, scheduler={"asha": {"minBudget": 9, "maxBudget": 3}}))
    assert cache.studies.seen(study(11)) == STUDY
    item = cache.studies.get(STUDY)
    assert item is not None
    assert isinstance(item.value, Study)


async def test_what_a_list_brought_before_it_broke_off_is_news_all_the_same(cache: Cache) -> None:
    cache.trials.seen(trial(3, 10, state="Running"))
    cache.trials.changes(STUDY)
    news: set[Key] = set()

    async def broken_off() -> AsyncIterator[Page]:
        yield Page([trial(3, 15, state="Failed")], 20)
        raise Unavailable("the list took too long", 410)

    with pytest.raises(Unavailable):
        await cache.trials.replace(broken_off(), cache.trials.everything(), news=news.add)
    assert news == {STUDY}
    assert await news_of(cache, listed(21, trial(3, 15, state="Failed"))) == set()


@pytest.mark.parametrize("left", [(), (trial(4, 9),)], ids=["none is left", "others are left"])
async def test_an_object_that_gets_another_label_during_the_list_of_the_old_one_is_not_gone(
    cache: Cache, left: tuple[Manifest, ...]
) -> None:
    for item in (trial(3, 10), *left):
        cache.trials.seen(item)

    async def relabelled_meanwhile() -> AsyncIterator[Page]:
        changed = trial(3, 15)
        changed["metadata"]["labels"] = {"halvard.dev/study": "other"}
        cache.trials.seen(changed)
        yield Page(list(left), 20)

    await cache.trials.replace(relabelled_meanwhile(), cache.trials.of(STUDY), STUDY)
    [item] = cache.trials.of(("team-a", "other"))
    assert cache.trials.get(item.key) is cache.trials.by_uid(item.uid) is item
    assert len(cache.trials.of(STUDY)) == len(left)


async def test_an_object_that_vanished_after_a_change_during_the_list_is_gone(cache: Cache) -> None:
    cache.trials.seen(trial(3, 10))

    async def changed_meanwhile() -> AsyncIterator[Page]:
        cache.trials.seen(trial(3, 15, state="Running"))
        yield Page([], 20)

    await cache.trials.replace(changed_meanwhile(), cache.trials.of(STUDY))
    [change] = cache.trials.changes(STUDY)
    assert (change.gone, change.item.value.status.state, len(cache.trials)) == (True, "Running", 0)

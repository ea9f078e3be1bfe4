"""The operator against a real API server while somebody meddles with what is its own: it says what is wrong, goes on
where it can, and goes on wholly once that is mended; a Study beside it never notices."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.conftest import CRDS, install
from cluster.scripted import Scene, eventually, study, template
from cluster.test_operator_process import RULES, grant
from halvard import apply
from halvard.kube import JSON_PATCH, PODS, STUDIES, TRIALS, Conflict, Kube, KubeError, Manifest, Resource
from lab.control_plane import ControlPlane

ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles")
BY_HAND = pytest.mark.unsound("versions", reason="what was decided about a Trial is changed by hand")


async def edit(scene: Scene, resource: Resource, name: str, *operations: Manifest, subresource: str = "") -> None:
    """Changes an object as `kubectl edit` does, with a JSON patch."""
    path = resource.path(scene.namespace, name, subresource)
    await scene.kube._request("patch", resource, path, body=[*operations], content_type=JSON_PATCH)


def put(path: str, value: Any) -> Manifest:
    return {"op": "add", "path": path, "value": value}


def take(path: str) -> Manifest:
    return {"op": "remove", "path": path}


async def begin(scene: Scene) -> Manifest:
    """A Study whose first trial runs; its Pod."""
    await scene.apply()
    pod = await scene.pod(0)
    await scene.runs(pod)
    return pod


async def goes_on(scene: Scene, pod: Manifest) -> None:
    """The trial of this Pod gets its verdict, and the next one its Pod."""
    await scene.condition("Degraded", "False", "Recovered")
    status, verdict = await scene.push(pod, 1, 0.5)
    assert (status, verdict.get("stop", "").partition(":")[0]) == (200, "paused at rung 1") or "stop" in verdict
    await scene.pod(1)


async def neighbour_goes_on(scene: Scene) -> None:
    """Another Study of the namespace is begun."""
    await scene.kube.create(STUDIES, scene.namespace, {**study(), "metadata": {"name": "neighbour"}})
    await eventually(lambda: exists(scene, PODS, "neighbour-0000-1"))


async def exists(scene: Scene, resource: Resource, name: str) -> bool:
    found = [item async for page in scene.kube.pages(resource, scene.namespace) for item in page.items]
    return any(item["metadata"]["name"] == name for item in found)


@BY_HAND
async def test_a_trial_that_cannot_be_read_holds_its_study_up_and_says_which_field(scene: Scene) -> None:
    async with scene.operator():
        pod = await begin(scene)
        await edit(scene, TRIALS, "search-0000", put("/spec/parameters", {"lr": {"about": 0.1}}))
        condition = await scene.condition("Degraded", "True", "TrialsDoNotFit")
        await neighbour_goes_on(scene)
        parameters = {"lr": 0.1}
        await edit(scene, TRIALS, "search-0000", put("/spec/parameters", parameters))
        await goes_on(scene, pod)
    assert condition["message"].startswith("Trial search-0000: spec.parameters.lr")


@BY_HAND
@pytest.mark.parametrize(
    ("part", "path", "value", "words"),
    [
        ("", "/spec/parameters", {"lr": 0.1, "wd": 1}, "spec.parameters.wd: the study has no such parameter"),
        ("status", "/status/attempt", 0, "status.attempt: 0; attempts are numbered from 1"),
    ],
)
async def test_a_trial_that_the_study_cannot_have_decided_on_holds_it_up_also_across_a_restart(
    scene: Scene, part: str, path: str, value: object, words: str
) -> None:
    async with scene.operator():
        pod = await begin(scene)
        before = (await scene.trial(0)).get(path.split("/")[1], {}).get(path.split("/")[2])
        await edit(scene, TRIALS, "search-0000", put(path, value), subresource=part)
        condition = await scene.condition("Degraded", "True", "TrialsDoNotFit")
    async with scene.operator():
        await neighbour_goes_on(scene)
        assert len([trial for trial in await scene.trials() if "search" in trial["metadata"]["name"]]) == 1
        await edit(scene, TRIALS, "search-0000", put(path, before or 1), subresource=part)
        await goes_on(scene, pod)
    assert condition["message"] == f"Trial search-0000: {words}"


async def test_a_budget_that_is_no_rung_is_a_condition_until_the_trial_is_deleted_and_begun_anew(scene: Scene) -> None:
    async with scene.operator():
        pod = await begin(scene)
        await edit(scene, TRIALS, "search-0000", put("/spec/budget", 10))
        condition = await scene.condition("Degraded", "True", "TrialsDoNotFit")
        before = await scene.trial(0)
        await delete(scene, TRIALS, before)
        refused = await scene.condition("Degraded", "True", "PodRefused")  # no garbage collector runs here
        await remove(scene, pod)
        await goes_on(scene, await another_pod(scene, pod))
        trial = await scene.trial(0)
    assert condition["message"] == "Trial search-0000: spec.budget: 10 is no rung; has to be one of 1, 3, 9"
    assert refused["message"] == "a Pod search-0000-1 is there that does not belong to Trial search-0000"
    assert trial["metadata"]["uid"] != before["metadata"]["uid"]


async def remove(scene: Scene, pod: Manifest) -> None:
    """Deletes a Pod with no grace."""
    path = PODS.path(scene.namespace, pod["metadata"]["name"])
    await scene.kube._request("delete", PODS, path, body={"gracePeriodSeconds": 0})


async def delete(scene: Scene, resource: Resource, item: Manifest) -> None:
    await scene.kube.delete(resource, scene.namespace, item["metadata"]["name"], item["metadata"]["uid"])


async def another_pod(scene: Scene, before: Manifest) -> Manifest:
    """Waits for a successor of the same name, which runs then."""

    async def look() -> Manifest | None:
        pod = await scene.pod(0)
        return pod if pod["metadata"]["uid"] != before["metadata"]["uid"] else None

    pod = await eventually(look)
    await scene.runs(pod)
    return pod


@pytest.mark.parametrize("path", ["/metadata/ownerReferences", "/metadata/labels"])
async def test_a_trial_that_has_lost_its_owner_or_label_is_a_condition_until_it_has_it_again(
    scene: Scene, path: str
) -> None:
    async with scene.operator():
        pod = await begin(scene)
        kept = (await scene.trial(0))["metadata"][path.rpartition("/")[2]]
        await edit(scene, TRIALS, "search-0000", take(path))
        condition = await scene.condition("Degraded", "True", "TrialRefused")
        await edit(scene, TRIALS, "search-0000", put(path, kept))
        await goes_on(scene, pod)
    assert "search-0000" in condition["message"]


async def test_a_pod_that_has_lost_its_owner_is_not_believed_and_its_leg_runs_again(scene: Scene) -> None:
    async with scene.operator():
        pod = await begin(scene)
        await edit(scene, PODS, "search-0000-1", take("/metadata/ownerReferences"))
        await scene.pod(0, attempt=2)
        assert (await scene.push(pod, 1, 0.001))[0] == 403
        trial = await scene.trial(0)
    assert (trial["status"]["faults"], trial["status"].get("rungs", [])) == (1, [])


LABELS = ["study", "trial", "attempt"]
EDITS = [[label, *value] for label in LABELS for value in (["0007"], [])]


def of_label(label: str, *value: str) -> Manifest:
    """The operation that changes or removes a label of ours."""
    path = f"/metadata/labels/halvard.dev~1{label}"
    return put(path, *value) if value else take(path)


async def edit_label(scene: Scene, label: str, *value: str) -> None:
    """Edits a label of the first trial's Pod; all lists of Pods are made anew after that."""
    await edit(scene, PODS, "search-0000-1", of_label(label, *value))
    before = await lists(scene)

    async def look() -> bool:
        return await lists(scene) > before + 1  # one may have been on its way

    await eventually(look)


async def lists(scene: Scene) -> float:
    """How often the operator has listed Pods."""
    families = text_string_to_metric_families(await scene.metrics())
    samples = (sample for family in families for sample in family.samples)
    asked = {"verb": "list", "resource": "pods"}
    return sum(s.value for s in samples if s.name == "halvard_api_requests_total" and asked.items() <= s.labels.items())


async def is_the_only_one(scene: Scene, pod: Manifest) -> bool:
    """Whether the first trial has had this Pod alone, through no fault of anybody."""
    trial, own = await scene.trial(0), [p for p in await scene.pods() if "search-0000" in p["metadata"]["name"]]
    uids = [p["metadata"]["uid"] for p in own if "deletionTimestamp" not in p["metadata"]]
    return (uids, trial["status"].get("faults", 0)) == ([pod["metadata"]["uid"]], 0)


@pytest.mark.parametrize("edited", EDITS, ids=" ".join)
async def test_a_pod_whose_labels_are_edited_is_its_trials_all_the_same(scene: Scene, edited: list[str]) -> None:
    scene.settings = replace(scene.settings, relist_period=0.5)
    async with scene.operator():
        pod = await begin(scene)
        await edit_label(scene, *edited)
        assert "paused" in (await scene.push(pod, 1, 0.5))[1]["stop"]
        await scene.ends(pod)
        await scene.pod(1)
        assert await is_the_only_one(scene, pod)


@pytest.mark.parametrize("edited", EDITS, ids=" ".join)
async def test_how_a_pod_ends_is_heard_whatever_its_labels_say(scene: Scene, edited: list[str]) -> None:
    scene.settings = replace(scene.settings, relist_period=0.5)
    async with scene.operator():
        pod = await begin(scene)
        await edit_label(scene, *edited)
        await scene.ends(pod, report={"step": 1, "metrics": {"loss": 0.5}, "checkpoint": "step-1"})
        await scene.trial_in(0, "Paused")
        assert await is_the_only_one(scene, pod)
        status = (await scene.trial(0))["status"]
    assert [result["value"] for result in status["rungs"]] == [0.5]


@pytest.mark.parametrize("label", LABELS)
async def test_a_pod_without_its_labels_that_is_deleted_has_vanished(scene: Scene, label: str) -> None:
    scene.settings = replace(scene.settings, relist_period=0.5)
    async with scene.operator():
        pod = await begin(scene)
        await edit_label(scene, label)
        await remove(scene, pod)
        await scene.pod(0, attempt=2)
        status = (await scene.trial(0))["status"]
    assert status["faults"] == 1


@pytest.mark.parametrize("state", ["Pending", "Running"])  # what the stored Trial says of its Pod
@pytest.mark.parametrize("edited", EDITS[:2], ids=" ".join)
async def test_an_operator_that_starts_knows_a_pod_whose_study_label_was_edited(
    scene: Scene, edited: list[str], state: str
) -> None:
    async with scene.operator():
        pod = await begin(scene)
        if state == "Running":
            await scene.trial_in(0, state)
    await edit(scene, PODS, "search-0000-1", of_label(*edited))
    async with scene.operator():
        await neighbour_goes_on(scene)
        assert "paused" in (await scene.push(pod, 1, 0.5))[1]["stop"]
        await scene.pod(1)
        assert await is_the_only_one(scene, pod)


async def test_a_pod_of_somebody_else_with_a_name_that_is_needed_is_a_condition_until_it_is_gone(scene: Scene) -> None:
    squatter = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "search-0000-1"}, **template()}
    await scene.kube.create(PODS, scene.namespace, squatter)
    async with scene.operator():
        await scene.apply()
        condition = await scene.condition("Degraded", "True", "PodRefused")
        await neighbour_goes_on(scene)
        squatting = await scene.pod(0)
        await remove(scene, squatting)
        await goes_on(scene, await another_pod(scene, squatting))
    assert condition["message"] == "a Pod search-0000-1 is there that does not belong to Trial search-0000"


async def test_a_status_of_the_study_that_was_written_by_hand_is_written_anew(scene: Scene) -> None:
    async with scene.operator():
        await begin(scene)

        async def is_written() -> bool:
            return bool((await scene.study())["status"]["rungs"])

        await eventually(is_written)
        nonsense = put("/status/trials/total", -7), put("/status/rungs/0/completed", 99), take("/status/startTime")
        await edit(scene, STUDIES, "search", *nonsense, subresource="status")

        async def look() -> bool:
            status = (await scene.study())["status"]
            return (status["trials"]["total"], status["rungs"][0]["completed"], "startTime" in status) == (1, 0, True)

        await eventually(look)


@pytest.mark.unsound("status", "quiet", reason="the Trials of a study that has ended are deleted, and it is edited")
async def test_a_study_that_has_ended_keeps_its_result_when_its_trials_are_cleared_away(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(limits={"trials": 1})
        await scene.leg(0, 0.5)
        await scene.condition("Complete", "True", "TrialsFinished")
        before = (await scene.study())["status"]
        await scene.kubectl("delete", "trials", "--all")
        await scene.change(parallelism=3)

        async def looked_at() -> Manifest | None:
            study = await scene.study()
            seen = study["status"]["observedGeneration"] == study["metadata"]["generation"]
            return study["status"] if seen else None

        after = await eventually(looked_at)
    assert before["best"]["value"] == 0.5
    assert (after["best"], after["trials"], after["state"]) == (before["best"], before["trials"], "Complete")


async def test_a_pod_that_may_not_be_deleted_is_a_condition_while_all_else_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = next(rule for rule in RULES["Role"] if "pods" in rule["resources"])
    fewer = {**pods, "verbs": [verb for verb in pods["verbs"] if verb != "delete"]}
    others = [rule for rule in RULES["Role"] if rule != pods]
    monkeypatch.setitem(RULES, "Role", [*others, fewer])
    monkeypatch.setattr(apply, "DELETE_AGAIN", 0.2)
    scene.settings = replace(scene.settings, kubeconfig=await grant(scene))
    async with scene.operator():
        await scene.apply(parallelism=2)
        for index in range(2):
            await scene.runs(await scene.pod(index))
        await scene.change(parallelism=1)
        condition = await scene.condition("Degraded", "True", "PodNotDeleted")
        status, _ = await scene.push(await scene.pod(0), 1, 0.5)
        assert status == 200
        await scene.trial_in(0, "Paused")
        await edit(scene, ROLES, f"operator-of-{scene.namespace}", put("/rules", [*others, pods]))
        await eventually(lambda: is_leaving(scene, "search-0001-1"))
    assert 'cannot delete resource "pods"' in condition["message"]


async def is_leaving(scene: Scene, name: str) -> bool:
    return all(p["metadata"]["name"] != name or "deletionTimestamp" in p["metadata"] for p in await scene.pods())


async def test_a_study_that_was_deleted_while_nobody_looked_starts_nothing_more(scene: Scene) -> None:
    async with scene.operator():
        pod = await begin(scene)
        token = await scene.token(pod)
    await delete(scene, STUDIES, await scene.study())
    before = [await scene.trials(), await scene.pods()]
    async with scene.operator():
        await neighbour_goes_on(scene)
        assert (await scene.push(pod, 1, 0.5, token))[0] == 403
        after = [await scene.trials(), await scene.pods()]
    assert [[item for item in items if "search" in item["metadata"]["name"]] for items in after] == before


async def test_a_study_of_the_same_name_has_nothing_of_the_one_before(scene: Scene) -> None:
    async with scene.operator():
        pod = await begin(scene)
        await scene.push(pod, 1, 0.001)
        await scene.trial_in(0, "Paused")
        await delete(scene, STUDIES, await scene.study())
        await scene.apply()
        condition = await scene.condition("Degraded", "True", "TrialRefused")
        for trial in await scene.trials():  # as the garbage collector does
            await delete(scene, TRIALS, trial)
        for left in await scene.pods():
            await remove(scene, left)
        await scene.runs(await another_pod(scene, pod))
        study = await scene.study()
        trial = await scene.trial(0)
    assert condition["message"] == "a Trial search-0000 is there that does not belong to this Study"
    assert trial["metadata"]["ownerReferences"][0]["uid"] == study["metadata"]["uid"]
    assert trial["status"].get("rungs", []) == []


async def test_a_namespace_that_goes_takes_its_studies_along_and_leaves_the_others_alone(scene: Scene) -> None:
    doomed = f"{scene.namespace}-doomed"
    await scene.kubectl("create", "namespace", doomed)
    await scene.kubectl("create", "serviceaccount", "default", "-n", doomed)
    scene.settings = replace(scene.settings, namespaces=(scene.namespace, doomed))
    async with scene.operator():
        await scene.kube.create(STUDIES, doomed, study(parallelism=2))
        beside = Scene(scene.control_plane, doomed, scene.kube, scene.directory)
        pods = [await beside.pod(index) for index in range(2)]
        await scene.kubectl("delete", "namespace", doomed, "--wait=false")
        await remove(beside, pods[0])  # its leg would run again, but nothing can be created there any more
        await beside.condition("Degraded", "True", "PodRefused")
        await delete(beside, STUDIES, await beside.study())  # as the namespace controller does
        for trial in await beside.trials():
            await delete(beside, TRIALS, trial)
        await remove(beside, pods[1])
        await goes_on_alone(scene)
        assert f'namespace="{doomed}"' not in await scene.metrics()


async def goes_on_alone(scene: Scene) -> None:
    await scene.apply()
    assert "stop" in await scene.leg(0, 0.5)
    await scene.pod(1)


@pytest.fixture
async def newer(control_plane: ControlPlane, scene: Scene) -> AsyncIterator[list[Manifest]]:
    """Custom resources of a later version: a field more in each spec and status, some with a default."""
    made = []
    for name in ("study", "trial"):
        found = control_plane.kubectl("create", "--dry-run=client", "-ojson", "-f", str(CRDS / f"{name}.yaml"))
        resource = json.loads(found.stdout)
        parts = resource["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        parts["spec"]["properties"]["novelty"] = {"type": "string", "default": "new"}
        parts["status"]["properties"]["novelty"] = {"type": "object", "properties": {"a": {"type": "integer"}}}
        made.append(resource)
    yield made
    install(control_plane)


async def test_custom_resources_of_a_later_version_are_applied_while_a_study_runs(
    scene: Scene, newer: list[Manifest]
) -> None:
    async with scene.operator():
        pod = await begin(scene)
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": newer})
        await asyncio.to_thread(scene.control_plane.kubectl, "apply", "-f", "-", input=manifest)
        await eventually(lambda: has_novelty(scene))
        await edit(scene, TRIALS, "search-0000", put("/status/novelty", {"a": 1}), subresource="status")
        assert "stop" in (await scene.push(pod, 1, 0.5))[1]
        await scene.ends(pod)
        await scene.leg(1, 0.6)
    async with scene.operator():
        await scene.change(parallelism=2)
        await scene.pod(2)
        await scene.pod(3)
        status = (await scene.study())["status"]
    assert all(condition["type"] != "Degraded" for condition in status.get("conditions", []))
    assert [trial["status"].get("faults", 0) for trial in await scene.trials()] == [0] * 4


async def has_novelty(scene: Scene) -> bool:
    try:
        return "novelty" in (await scene.study())["spec"] and "novelty" in (await scene.trial(0))["spec"]
    except Conflict:
        return False


async def edited_just_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, verb: str, resource: Resource, **spec: Any
) -> list[str]:
    """Begins a Study that is edited while the operator is about to do this for the first time; what came of it."""
    call, came = getattr(Kube, verb), list[str]()

    async def edit_first(kube: Kube, of: Resource, *arguments: Any, **options: Any) -> Manifest:
        if of == resource and not came:
            came.append("")
            try:
                await scene.change(**spec)
            except KubeError as error:
                came[0] = str(error)
        done: Manifest = await call(kube, of, *arguments, **options)
        return done

    async with scene.operator():
        monkeypatch.setattr(Kube, verb, edit_first)
        await scene.apply()
        await scene.pod(0)
    return came


async def test_once_there_is_a_trial_what_it_rests_on_cannot_be_changed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    [words] = await edited_just_before(scene, monkeypatch, "create", TRIALS, seed=8)
    assert "seed cannot be changed once the study has started" in words


async def test_an_edit_at_the_last_moment_is_what_the_first_trial_rests_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [{"name": "lr", "float": {"min": 5.0, "max": 6.0}}]
    [words] = await edited_just_before(scene, monkeypatch, "patch", STUDIES, parameters=space)
    trial = await scene.trial(0)
    assert words == ""
    assert 5 <= trial["spec"]["parameters"]["lr"] <= 6

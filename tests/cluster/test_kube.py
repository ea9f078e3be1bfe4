import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from halvard.kube import PODS, TRIALS, Conflict, Kube, NotFound, Refused, Resource, Unavailable
from lab.control_plane import ControlPlane, free_port

CONFIG_MAPS = Resource("", "v1", "configmaps")
QUOTAS = Resource("", "v1", "resourcequotas")


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    connection = await Kube.connect(control_plane.kubeconfig)
    yield connection
    await connection.close()


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def pod(name: str, **spec: object) -> dict[str, Any]:
    containers = [{"name": "trainer", "image": "none", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def trial(name: str) -> dict[str, Any]:
    spec = {"index": 0, "bracket": 0, "budget": 1, "parameters": {"a": 0.5, "b": 2}, "decision": "new trial"}
    return {"apiVersion": "halvard.dev/v1alpha1", "kind": "Trial", "metadata": {"name": name}, "spec": spec}


async def test_what_was_created_is_read_back(kube: Kube, namespace: str) -> None:
    created = await kube.create(CONFIG_MAPS, namespace, config_map("one"))
    assert await kube.get(CONFIG_MAPS, namespace, "one") == created


async def test_a_missing_object_is_not_found_in_the_servers_words(kube: Kube, namespace: str) -> None:
    with pytest.raises(NotFound, match='configmaps "none" not found'):
        await kube.get(CONFIG_MAPS, namespace, "none")


async def test_what_is_missing_for_an_object_to_be_created_is_a_refusal(kube: Kube) -> None:
    with pytest.raises(Refused, match='namespaces "none" not found'):
        await kube.create(CONFIG_MAPS, "none", config_map("one"))


async def test_a_taken_name_is_a_conflict_that_exists(kube: Kube, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, namespace, config_map("one"))
    with pytest.raises(Conflict) as caught:
        await kube.create(CONFIG_MAPS, namespace, config_map("one"))
    assert caught.value.exists


async def test_a_stale_version_is_a_conflict_that_is_none_of_existence(kube: Kube, namespace: str) -> None:
    created = await kube.create(CONFIG_MAPS, namespace, config_map("one"))
    await kube.replace(CONFIG_MAPS, namespace, "one", {**created, "data": {"a": "2"}})
    with pytest.raises(Conflict) as caught:
        await kube.replace(CONFIG_MAPS, namespace, "one", {**created, "data": {"a": "3"}})
    assert not caught.value.exists


async def test_a_patched_part_is_replaced_as_a_whole(kube: Kube, namespace: str) -> None:
    created = await kube.create(TRIALS, namespace, trial("one"))
    version = created["metadata"]["resourceVersion"]
    spec = {**created["spec"], "budget": 3, "decision": "promoted"}
    patched = await kube.patch(TRIALS, namespace, "one", version=version, part="spec", value=spec)
    assert patched["spec"] == spec


async def test_a_patch_of_a_stale_version_is_a_conflict(kube: Kube, namespace: str) -> None:
    created = await kube.create(TRIALS, namespace, trial("one"))
    version = created["metadata"]["resourceVersion"]
    for part, value in (("spec", {**created["spec"], "budget": 3}), ("status", {"state": "Running", "attempt": 1})):
        patched = await kube.patch(TRIALS, namespace, "one", version=version, part=part, value=value)
        with pytest.raises(Conflict):
            await kube.patch(TRIALS, namespace, "one", version=version, part=part, value=value)
        version = patched["metadata"]["resourceVersion"]


async def test_a_status_loses_the_keys_it_no_longer_has(kube: Kube, namespace: str) -> None:
    created = await kube.create(TRIALS, namespace, trial("one"))
    status = {"state": "Paused", "attempt": 2, "step": 3, "checkpoint": {"name": "step-3", "step": 3, "attempt": 1}}
    version = created["metadata"]["resourceVersion"]
    patched = await kube.patch(TRIALS, namespace, "one", version=version, part="status", value=status)
    assert patched["status"]["checkpoint"] == status["checkpoint"]
    version = patched["metadata"]["resourceVersion"]
    patched = await kube.patch(TRIALS, namespace, "one", version=version, part="status", value={"state": "Failed"})
    assert "checkpoint" not in patched["status"]


async def test_an_unknown_field_is_refused_by_name(kube: Kube, namespace: str) -> None:
    with pytest.raises(Refused, match=r'unknown field "spec\.restartpolicy"'):
        await kube.create(PODS, namespace, pod("one", restartpolicy="Never"))


async def test_an_invalid_object_is_refused_and_no_quota_matter(kube: Kube, namespace: str) -> None:
    with pytest.raises(Refused, match="Invalid value") as caught:
        await kube.create(PODS, namespace, pod("NOT A NAME"))
    assert not caught.value.quota


async def test_an_exhausted_quota_is_told_apart(kube: Kube, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "0"}},
    }
    created = await kube.create(QUOTAS, namespace, quota)
    used = {"hard": {"pods": "0"}, "used": {"pods": "0"}}  # what the quota controller would write
    version = created["metadata"]["resourceVersion"]
    await kube.patch(QUOTAS, namespace, "small", version=version, part="status", value=used)
    with pytest.raises(Refused) as caught:
        async with asyncio.timeout(30):
            await create_until_refused(kube, namespace)
    assert caught.value.quota


async def create_until_refused(kube: Kube, namespace: str) -> None:
    number = 0
    while True:  # admission sees a new quota a moment later
        await kube.create(PODS, namespace, pod(f"pod-{number}"))
        number += 1


async def test_only_the_object_of_that_uid_is_deleted(kube: Kube, namespace: str) -> None:
    created = await kube.create(CONFIG_MAPS, namespace, config_map("one"))
    with pytest.raises(Conflict):
        await kube.delete(CONFIG_MAPS, namespace, "one", "00000000-0000-0000-0000-000000000000")
    await kube.delete(CONFIG_MAPS, namespace, "one", created["metadata"]["uid"])
    with pytest.raises(NotFound):
        await kube.get(CONFIG_MAPS, namespace, "one")


async def test_a_list_is_read_in_pages_of_one_version(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await kube.create(CONFIG_MAPS, namespace, config_map(f"map-{number}", kind="ours"))
    await kube.create(CONFIG_MAPS, namespace, config_map("another"))
    monkeypatch.setattr("halvard.kube.PAGE", 2)
    pages = [page async for page in kube.pages(CONFIG_MAPS, namespace, "kind=ours")]
    assert [len(page.items) for page in pages] == [2, 2, 1]
    assert [item["metadata"]["name"] for page in pages for item in page.items] == [f"map-{n}" for n in range(5)]
    assert len({page.version for page in pages}) == 1


async def test_a_stranger_s_token_is_not_authenticated(kube: Kube) -> None:
    status = await kube.review_token("not a token", ["halvard.dev/reports"])
    assert not status.get("authenticated")


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    cluster = {"name": "gone", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}
    context = {"name": "gone", "context": {"cluster": "gone", "user": "nobody"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "nobody", "user": {}}]}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(str({"apiVersion": "v1", "kind": "Config", "current-context": "gone", **config}))
    connection = await Kube.connect(kubeconfig)
    with pytest.raises(Unavailable):
        await connection.get(CONFIG_MAPS, "default", "one")
    await connection.close()


async def test_every_request_is_heard_of(control_plane: ControlPlane, namespace: str) -> None:
    heard: list[tuple[str, str, int]] = []
    connection = await Kube.connect(control_plane.kubeconfig, lambda *request: heard.append(request[:3]))
    await connection.create(CONFIG_MAPS, namespace, config_map("one"))
    with pytest.raises(NotFound):
        await connection.get(CONFIG_MAPS, namespace, "two")
    await connection.close()
    assert heard == [("create", "configmaps", 201), ("get", "configmaps", 404)]

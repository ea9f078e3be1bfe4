"""Where the leader can be reached, as a real API server has it: one EndpointSlice that whoever leads writes."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.scripted import Scene, eventually
from halvard.address import Address
from halvard.kube import ENDPOINT_SLICES, SERVICES, Kube, Manifest, NotFound, Refused
from lab.control_plane import ControlPlane


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    connection = await Kube.connect(control_plane.kubeconfig)
    yield connection
    await connection.close()


async def make_service(kube: Kube, namespace: str, *ports: Manifest) -> str:
    """Makes the chart's Service, without a selector; its uid."""
    spec = {"ports": [*ports] or [{"name": "collector", "port": 8443, "targetPort": 8443}]}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "halvard"}, "spec": spec}
    return str((await kube.create(SERVICES, namespace, manifest))["metadata"]["uid"])


async def stored(kube: Kube, namespace: str) -> Manifest:
    return await kube.get(ENDPOINT_SLICES, namespace, "halvard")


async def test_the_slice_leads_from_the_service_to_one_pod_and_goes_with_the_service(
    kube: Kube, namespace: str
) -> None:
    uid = await make_service(kube, namespace)
    await Address(kube, namespace, "halvard", "10.1.2.3", 8443).write()
    found = await stored(kube, namespace)
    assert found["metadata"]["labels"] == {
        "kubernetes.io/service-name": "halvard",
        "endpointslice.kubernetes.io/managed-by": "halvard.dev",
    }
    assert [(owner["kind"], owner["uid"]) for owner in found["metadata"]["ownerReferences"]] == [("Service", uid)]
    assert found["addressType"] == "IPv4"
    assert [endpoint["addresses"] for endpoint in found["endpoints"]] == [["10.1.2.3"]]
    assert found["endpoints"][0]["conditions"]["ready"] is True
    assert found["ports"] == [{"name": "collector", "port": 8443, "protocol": "TCP"}]


async def test_an_address_of_the_new_family_and_a_port_without_a_name_do(kube: Kube, namespace: str) -> None:
    await make_service(kube, namespace, {"port": 443})
    await Address(kube, namespace, "halvard", "fd00::1", 9443).write()
    found = await stored(kube, namespace)
    assert (found["addressType"], found["endpoints"][0]["addresses"]) == ("IPv6", ["fd00::1"])
    assert found["ports"] == [{"name": "", "port": 9443, "protocol": "TCP"}]


async def test_nothing_is_written_where_it_is_so_already(kube: Kube, namespace: str) -> None:
    await make_service(kube, namespace)
    address = Address(kube, namespace, "halvard", "10.1.2.3", 8443)
    await address.write()
    before = await stored(kube, namespace)
    await address.write()
    assert await stored(kube, namespace) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"endpoints": [{"addresses": ["10.9.9.9"]}]},
        {"ports": [{"name": "collector", "port": 1, "protocol": "TCP"}]},
        {"metadata": {"labels": {"kubernetes.io/service-name": "another"}}},
        {"metadata": {"ownerReferences": []}},
    ],
)
async def test_what_was_changed_by_hand_is_put_right(kube: Kube, namespace: str, changed: dict[str, Any]) -> None:
    await make_service(kube, namespace)
    address = Address(kube, namespace, "halvard", "10.1.2.3", 8443)
    await address.write()
    before = await stored(kube, namespace)
    metadata = {**before["metadata"], **changed.get("metadata", {})}
    await kube.replace(ENDPOINT_SLICES, namespace, "halvard", {**before, **changed, "metadata": metadata})
    await address.write()
    found = await stored(kube, namespace)
    for volatile in ("resourceVersion", "generation", "managedFields"):
        del before["metadata"][volatile], found["metadata"][volatile]
    assert found == before


async def test_without_the_service_there_is_nothing_to_lead_from(kube: Kube, namespace: str) -> None:
    with pytest.raises(NotFound, match='services "halvard" not found'):
        await Address(kube, namespace, "halvard", "10.1.2.3", 8443).write()
    with pytest.raises(NotFound):
        await stored(kube, namespace)


async def test_an_address_nobody_may_lead_to_is_refused_in_the_servers_words(kube: Kube, namespace: str) -> None:
    await make_service(kube, namespace)
    with pytest.raises(Refused, match="may not be in the loopback range"):
        await Address(kube, namespace, "halvard", "127.0.0.1", 8443).write()


async def asked(scene: Scene) -> dict[str, int]:
    """What the operator has asked the API server about EndpointSlices, and how often, by verb."""
    families = text_string_to_metric_families(await scene.metrics())
    samples = (sample for family in families for sample in family.samples)
    return {
        sample.labels["verb"]: int(sample.value)
        for sample in samples
        if sample.name == "halvard_api_requests_total" and sample.labels["resource"] == "endpointslices"
    }


async def has_looked(scene: Scene, times: int) -> bool:
    return (await asked(scene)).get("get", 0) >= times


async def test_the_leader_says_where_it_is_before_it_says_that_it_leads_and_writes_it_once(scene: Scene) -> None:
    await make_service(scene.kube, scene.namespace)
    scene.settings = replace(scene.settings, service="halvard", pod_ip="10.1.2.3", relist_period=0.1)
    async with scene.operator():
        found = await stored(scene.kube, scene.namespace)
        await eventually(lambda: has_looked(scene, 3))
        assert {**await asked(scene), "get": 0} == {"get": 0, "create": 1}
    assert found["endpoints"][0]["addresses"] == ["10.1.2.3"]
    assert found["ports"][0]["port"] == scene.settings.collector_port


async def test_without_a_service_nobody_is_told(scene: Scene) -> None:
    scene.settings = replace(scene.settings, relist_period=0.1)
    async with scene.operator():
        await scene.apply()
        await scene.pod(0)
        assert await asked(scene) == {}

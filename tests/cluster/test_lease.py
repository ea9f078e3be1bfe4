import asyncio
from collections.abc import AsyncIterator

import pytest

from halvard.kube import LEASES, Kube, Resource, Unavailable
from halvard.lease import Lease, LeaseLost, Timing
from lab.control_plane import ControlPlane

CONFIG_MAPS = Resource("", "v1", "configmaps")
QUICK = Timing(duration=2.0, deadline=1.5, retry=0.1)


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    connection = await Kube.connect(control_plane.kubeconfig)
    yield connection
    await connection.close()


async def holder(kube: Kube, namespace: str) -> str:
    return str((await kube.get(LEASES, namespace, "halvard"))["spec"]["holderIdentity"])


async def test_the_first_candidate_leads(kube: Kube, namespace: str) -> None:
    lease = Lease(kube, namespace, "halvard", "one", QUICK)
    await lease.acquire()
    assert lease.held
    assert await holder(kube, namespace) == "one"


async def test_of_many_candidates_one_leads(kube: Kube, namespace: str) -> None:
    leases = [Lease(kube, namespace, "halvard", f"candidate-{n}", QUICK) for n in range(8)]
    await asyncio.gather(*(lease._attempt() for lease in leases))
    assert [lease.held for lease in leases].count(True) == 1


async def test_a_silent_leader_is_replaced_when_its_lease_has_run_out(kube: Kube, namespace: str) -> None:
    first, second = (Lease(kube, namespace, "halvard", name, QUICK) for name in ("one", "two"))
    await first.acquire()
    async with asyncio.timeout(30):
        await second.acquire()
    assert await holder(kube, namespace) == "two"


async def test_a_leader_that_renews_is_not_replaced(kube: Kube, namespace: str) -> None:
    first, second = (Lease(kube, namespace, "halvard", name, QUICK) for name in ("one", "two"))
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * QUICK.duration):
            await second.acquire()
    assert await holder(kube, namespace) == "one"
    holding.cancel()


async def test_a_released_lease_is_taken_at_once(kube: Kube, namespace: str) -> None:
    long = Timing(duration=3600.0, deadline=10.0, retry=0.1)
    first, second = (Lease(kube, namespace, "halvard", name, long) for name in ("one", "two"))
    await first.acquire()
    await first.release()
    assert not first.held
    async with asyncio.timeout(30):
        await second.acquire()
    assert await holder(kube, namespace) == "two"


async def test_a_container_that_is_started_again_in_its_pod_goes_on_at_once(kube: Kube, namespace: str) -> None:
    long = Timing(duration=3600.0, deadline=10.0, retry=0.1)
    killed, again = (Lease(kube, namespace, "halvard", "pod", long) for _ in range(2))
    await killed.acquire()
    async with asyncio.timeout(30):
        await again.acquire()
    lease = await kube.get(LEASES, namespace, "halvard")
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("pod", 0)


async def test_who_could_lead_at_once_stands_by_while_another_does(
    control_plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    connection = await Kube.connect(control_plane.kubeconfig)
    first, second = Lease(kube, namespace, "halvard", "one"), Lease(connection, namespace, "halvard", "two", QUICK)
    assert not second.stands_by
    await first.acquire()
    assert not await second._attempt()
    assert (first.stands_by, second.stands_by) == (False, True)
    server, connection._configuration.host = connection._configuration.host, "https://127.0.0.1:1"
    assert not await second._attempt()
    assert not second.stands_by  # for all it knows
    connection._configuration.host = server
    await first.release()
    await second.acquire()
    assert not second.stands_by
    await connection.close()


async def test_a_leader_that_finds_another_one_has_lost(kube: Kube, namespace: str) -> None:
    lease = Lease(kube, namespace, "halvard", "one", QUICK)
    await lease.acquire()
    stored = await kube.get(LEASES, namespace, "halvard")
    stored["spec"]["holderIdentity"] = "usurper"
    await kube.replace(LEASES, namespace, "halvard", stored)
    async with asyncio.timeout(30):
        with pytest.raises(LeaseLost):
            await lease.hold()
    assert not lease.held


async def test_a_leader_that_cannot_renew_in_time_has_lost(control_plane: ControlPlane, namespace: str) -> None:
    connection = await Kube.connect(control_plane.kubeconfig)
    lease = Lease(connection, namespace, "halvard", "one", QUICK)
    await lease.acquire()
    connection._configuration.host = "https://127.0.0.1:1"  # nobody listens there
    async with asyncio.timeout(30):
        with pytest.raises(LeaseLost):
            await lease.hold()
    await connection.close()


async def test_a_change_by_hand_of_something_else_does_not_cost_the_lease(kube: Kube, namespace: str) -> None:
    lease = Lease(kube, namespace, "halvard", "one", QUICK)
    await lease.acquire()
    stored = await kube.get(LEASES, namespace, "halvard")
    stored["metadata"]["annotations"] = {"looked-at": "today"}
    await kube.replace(LEASES, namespace, "halvard", stored)
    assert await lease._attempt()
    assert lease.held


async def test_who_was_paused_for_longer_than_its_lease_asks_for_no_write_any_more(kube: Kube, namespace: str) -> None:
    lease = Lease(kube, namespace, "halvard", "one", QUICK)
    assert not lease.may_write()
    await lease.acquire()
    kube.may_write = lease.may_write
    note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}}
    await kube.create(CONFIG_MAPS, namespace, note)
    lease._written_at -= QUICK.duration
    with pytest.raises(Unavailable, match="somebody else may lead by now"):
        await kube.create(CONFIG_MAPS, namespace, {**note, "metadata": {"name": "late"}})
    assert await holder(kube, namespace) == "one"
    assert await lease._attempt()
    await kube.create(CONFIG_MAPS, namespace, {**note, "metadata": {"name": "in-time"}})

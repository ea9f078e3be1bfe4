"""A lease is kept or lost by the clock of its holder."""

import asyncio
import copy
import time
from typing import cast

import pytest

from halvard.kube import Kube, Manifest, NotFound, Unavailable
from halvard.lease import Lease, LeaseLost, Timing

TIMING = Timing(duration=1.5, deadline=0.5, retry=0.1)


class Server:
    """Keeps one Lease; while `away`, it answers nothing."""

    def __init__(self) -> None:
        self.stored: Manifest | None = None
        self.version = 0
        self.away = False

    async def get(self, *_: object) -> Manifest:
        await asyncio.sleep(0.001)
        if self.away:
            raise Unavailable("no answer")
        if self.stored is None:
            raise NotFound("not found", 404)
        return copy.deepcopy(self.stored)

    async def create(self, _: object, __: str, manifest: Manifest) -> None:
        self.version += 1
        self.stored = manifest
        self.stored["metadata"]["resourceVersion"] = str(self.version)

    async def replace(self, resource: object, namespace: str, _: str, manifest: Manifest) -> None:
        await self.create(resource, namespace, manifest)


async def held_through(busy: float, *, away: bool = False) -> bool:
    """Whether a leader still is one after the event loop stood still for so many seconds."""
    server = Server()
    lease = Lease(cast("Kube", server), "default", "halvard", "one", TIMING)
    await lease.acquire()
    holding = asyncio.create_task(lease.hold())
    await asyncio.sleep(0.05)
    server.away = away
    time.sleep(busy)  # noqa: ASYNC251  # as a long turn does
    await asyncio.wait([holding], timeout=0.4)
    if not holding.done():
        holding.cancel()
        return lease.held
    with pytest.raises(LeaseLost):
        holding.result()
    return False


async def test_a_leader_that_was_busy_for_longer_than_its_deadline_goes_on_where_nobody_else_may_lead_yet() -> None:
    assert await held_through(0.7)


async def test_a_leader_that_was_busy_for_longer_than_its_lease_has_lost_it() -> None:
    assert not await held_through(1.7)


async def test_a_leader_that_was_busy_and_then_finds_no_answer_has_lost_at_once() -> None:
    assert not await held_through(0.7, away=True)

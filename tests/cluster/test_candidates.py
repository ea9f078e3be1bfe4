"""Two operators, each a process of its own: one leads, the other stands by until it may."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

from cluster.scripted import Scene, eventually
from halvard.kube import ENDPOINT_SLICES, LEASES, SERVICES
from lab.control_plane import free_port

MAIN = "from halvard.operator import main; main()"


class Candidate:
    """An operator that may lead; it has the name of its Pod, ports of its own, and what Pods know it by."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene = Scene(scene.control_plane, scene.namespace, scene.kube, scene.directory)
        self.scene.settings = replace(scene.settings, metrics_port=free_port())
        self.environment = {**self.scene.environment(), "HALVARD_IDENTITY": name}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, until: str) -> None:
        self.process = await asyncio.create_subprocess_exec(sys.executable, "-c", MAIN, env=self.environment)
        await eventually(lambda: self.scene.says(until))

    async def kill(self) -> None:
        """Ends it as a node that fails does."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def candidates(scene: Scene, *names: str) -> AsyncIterator[list[Candidate]]:
    made = [Candidate(scene, name) for name in names]
    try:
        yield made
    finally:
        for candidate in made:
            if candidate.process:
                await candidate.kill()


async def holder(scene: Scene) -> tuple[str, int]:
    """Who leads, and how often that has changed."""
    spec = (await scene.kube.get(LEASES, scene.namespace, "halvard"))["spec"]
    return spec["holderIdentity"], spec["leaseTransitions"]


async def test_when_the_leader_is_killed_the_other_goes_on(scene: Scene) -> None:
    async with candidates(scene, "one", "two") as (one, two):
        await one.start("leading")
        await two.start("standing by")
        await scene.apply()
        await scene.leg(0, 0.5)
        pod = await scene.pod(1)
        await scene.runs(pod)
        await one.kill()
        status, verdict = await scene.push(pod, 1, 0.6)
        assert (status, list(verdict)) == (200, ["stop"])
        assert await two.scene.says("leading")
        await scene.pod(2)
        assert await holder(scene) == ("two", 1)
        assert [pod["metadata"]["name"] for pod in await scene.pods()] == [f"search-000{n}-1" for n in range(3)]


async def test_a_killed_leader_that_is_started_again_in_its_pod_simply_goes_on(scene: Scene) -> None:
    async with candidates(scene, "one", "two") as (one, two):
        await one.start("leading")
        await two.start("standing by")
        await scene.apply()
        await scene.leg(0, 0.5)
        await one.kill()
        await one.start("leading")
        await scene.leg(1, 0.6)
        await scene.pod(2)
        assert await two.scene.says("standing by")
        assert await holder(scene) == ("one", 0)


async def test_in_a_rolling_update_the_new_one_is_ready_before_the_old_one_goes(scene: Scene) -> None:
    async with candidates(scene, "old", "new") as (old, new):
        await old.start("leading")
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await new.start("standing by")
        assert old.process is not None
        old.process.terminate()
        assert await old.process.wait() == 0
        assert (await holder(scene))[0] in {"", "new"}  # it was given back, and not waited for
        await eventually(lambda: new.scene.says("leading"))
        assert (await scene.push(pod, 1, 0.5))[0] == 200
        await scene.pod(1)


async def test_the_service_leads_to_whoever_leads(scene: Scene) -> None:
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "halvard"}}
    await scene.kube.create(SERVICES, scene.namespace, {**manifest, "spec": {"ports": [{"port": 8443}]}})
    async with candidates(scene, "one", "two") as both:
        for number, candidate in enumerate(both):
            candidate.environment |= {"HALVARD_SERVICE": "halvard", "HALVARD_POD_IP": f"10.1.2.{number}"}
        one, two = both
        await one.start("leading")
        await two.start("standing by")
        assert await address(scene) == "10.1.2.0"
        assert 'resource="endpointslices"' not in await two.scene.metrics()
        assert one.process is not None
        one.process.terminate()
        await eventually(lambda: two.scene.says("leading"))
        assert await address(scene) == "10.1.2.1"


async def address(scene: Scene) -> str:
    """Where the Service leads to."""
    found = (await scene.kube.get(ENDPOINT_SLICES, scene.namespace, "halvard"))["endpoints"]
    assert len(found) == 1
    return str(found[0]["addresses"][0])

"""Two operators with a Lease: a leader is paused for longer than it may be silent, and wakes up when another leads."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Self

from chaos.apiserver import disturbed
from chaos.failpoints import FAILPOINT, PASSING, SIGNAL
from chaos.operators import Operator, background
from chaos.report import Report, Scenario
from chaos.story import Story, lasting_port
from chaos.tweaks import LEASE
from halvard.kube import LEASES, KubeError
from lab.control_plane import ControlPlane

QUICK = {LEASE: "2,1.2,0.1"}
HALF_DONE = ("before patch trials/status", "after patch trials/status", "after create trials", "before create pods")
LOOK = 0.05  # seconds


@dataclass
class Candidate:
    """An operator that is started again whenever it ends, always under the same name and at the same ports."""

    story: Story
    name: str
    collector_port: int
    metrics_port: int
    operator: Operator | None = None

    def start(self, **more: str) -> Operator:
        """A new process."""
        told = {
            "HALVARD_IDENTITY": self.name,
            "HALVARD_COLLECTOR_PORT": str(self.collector_port),
            "HALVARD_METRICS_PORT": str(self.metrics_port),
            **QUICK,
        }
        self.operator = self.story.operators.start(**told, **more)
        return self.operator

    async def leads(self) -> None:
        """Waits until the Lease says so: a process that is paused would not."""
        scene = self.story.scene
        while True:
            with contextlib.suppress(KubeError):
                lease = await scene.kube.get(LEASES, scene.namespace, "halvard")
                if lease["spec"]["holderIdentity"] == self.name:
                    return
            await asyncio.sleep(LOOK)


class Service:
    """What Pods are told to push to: leads to one operator, and cuts what still leads to another one."""

    def __init__(self, port: int) -> None:
        """Listens inside an `async with` statement."""
        self._port = port
        self._leads_to = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Nobody is behind it yet."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cuts everything."""
        self._server.close()
        self.lead_to(0)
        await self._server.wait_closed()

    def lead_to(self, port: int) -> None:
        """From now on."""
        self._leads_to = port
        for writer in self._open:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._leads_to)
            self._open |= {writer, back}
            await asyncio.gather(pump(reader, back), pump(there, writer))
            self._open -= {writer, back}
        writer.close()


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carries over what comes, until the end."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


async def paused(control_plane: ControlPlane, seed: int) -> Report:
    """Leader after leader stops in the middle of a turn, for longer than its Lease lasts, and then goes on."""
    random = Random(seed)

    @contextlib.asynccontextmanager
    async def trouble(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        service = Service(story.scene.settings.collector_port)
        pair = [Candidate(story, name, lasting_port(), lasting_port()) for name in ("one", "two")]
        async with service, background(change_places(story, pair, service, random, faults)):
            try:
                yield
            finally:
                for candidate in pair:
                    if candidate.operator:
                        candidate.operator.signal(signal.SIGCONT)
                        await candidate.operator.kill()

    return await disturbed(control_plane, seed, trouble)


async def change_places(
    story: Story, pair: list[Candidate], service: Service, random: Random, faults: Counter[str]
) -> None:
    """Pauses one leader after the other at a failpoint, and lets it go on once the other one has done something."""
    leader, other = pair
    while True:
        where, passing = random.choice(HALF_DONE), random.choice("123")
        stopping = leader.start(**{FAILPOINT: where, PASSING: passing, SIGNAL: signal.SIGSTOP.name})
        await leader.leads()
        service.lead_to(leader.collector_port)
        standing_by = other.start()
        await other.leads()  # the leader is silent, so it has been paused
        faults["leader paused"] += 1
        service.lead_to(other.collector_port)
        await story.progressed.wait()
        stopping.signal(signal.SIGCONT)
        await stopping.gone.wait()  # it steps down
        faults["leader woke up"] += 1
        await standing_by.stop()  # gives its Lease back: the next leader is one that will be paused


SCENARIOS = (Scenario("leader paused", paused, rounds=10),)

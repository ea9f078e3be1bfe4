"""Two operators with a Lease: a leader is paused for longer than it may be silent, and wakes up when another leads.

Each is a user of its own, so that the audit log tells what the loser still asks for: all of it is refused.
"""

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Self

from chaos.apiserver import disturbed
from chaos.failpoints import FAILPOINT, PASSING, SIGNAL
from chaos.operators import Operator, background
from chaos.report import Report, Scenario
from chaos.story import Story, lasting_port
from chaos.tweaks import LEASE
from halvard.kube import EVENTS, LEASES, KubeError
from lab.audit import WRITES
from lab.control_plane import CANDIDATES, ControlPlane

QUICK = {LEASE: "2,1.2,0.1"}
HALF_DONE = ("before patch trials/status", "after patch trials/status", "after create trials", "before create pods")
LOOK = 0.05  # seconds
STEPS_DOWN = "stopping, for somebody else may lead: {}/halvard could not be renewed by {}\n"
REFUSED, BROKEN_OFF = (404, 409), 500  # by its version, or as it is gone


@dataclass
class Candidate:
    """An operator that is started again whenever it ends, always as the same user and at the same ports."""

    story: Story
    name: str
    collector_port: int
    metrics_port: int
    operator: Operator | None = None

    def start(self, **more: str) -> Operator:
        """A new process."""
        scene = self.story.scene
        kubeconfig = scene.directory / f"{self.name}.kubeconfig"
        kubeconfig.write_text(json.dumps(scene.control_plane.kubeconfig_of(self.name)))
        told = {
            "KUBECONFIG": str(kubeconfig),
            "HALVARD_IDENTITY": self.name,
            "HALVARD_COLLECTOR_PORT": str(self.collector_port),
            "HALVARD_METRICS_PORT": str(self.metrics_port),
            **QUICK,
        }
        self.operator = self.story.operators.start(**told, **more)
        return self.operator

    async def stays(self) -> None:
        """Lives until it is cancelled; one that could not renew its Lease in time is started again."""
        while True:
            running = self.start()
            try:
                await running.gone.wait()
            finally:
                await running.stop()

    async def leads(self) -> None:
        """Waits until the Lease says so: a process that is paused would not."""
        scene = self.story.scene
        while True:
            with contextlib.suppress(KubeError):
                lease = await scene.kube.get(LEASES, scene.namespace, "halvard")
                if lease["spec"]["holderIdentity"] == self.name:
                    return
            await asyncio.sleep(LOOK)

    def stepped_down(self) -> int:
        """How often it has ended as it had lost its Lease."""
        log, words = self.story.operators.log, STEPS_DOWN.format(self.story.scene.namespace, self.name)
        return log.read_text().count(words) if log.exists() else 0


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
    random, wrong = Random(seed), list[str]()

    @contextlib.asynccontextmanager
    async def trouble(story: Story, faults: Counter[str]) -> AsyncIterator[None]:
        service = Service(story.scene.settings.collector_port)
        pair = [Candidate(story, name, lasting_port(), lasting_port()) for name in CANDIDATES]
        async with service, background(change_places(story, pair, service, random, faults=faults, wrong=wrong)):
            try:
                yield
            finally:
                for candidate in pair:
                    if candidate.operator:
                        candidate.operator.signal(signal.SIGCONT)
                        await candidate.operator.kill()
        for what, code in too_late(story.log.lines(), story.scene.namespace):
            faults["late write refused"] += code in REFUSED
            if code not in REFUSED:
                wrong.append(f"too late, and answered {code}: {what}")

    return await disturbed(control_plane, seed, trouble) + Report(violations=tuple(wrong))


async def change_places(
    story: Story, pair: list[Candidate], service: Service, random: Random, *, faults: Counter[str], wrong: list[str]
) -> None:
    """Pauses one leader after the other at a failpoint, and lets it go on once the other one has done something."""
    leader, other = pair
    while True:
        where, passing, before = random.choice(HALF_DONE), random.choice("123"), leader.stepped_down()
        stopping = leader.start(**{FAILPOINT: where, PASSING: passing, SIGNAL: signal.SIGSTOP.name})
        await leader.leads()
        service.lead_to(leader.collector_port)
        async with background(other.stays()):  # it gives its Lease back: the next leader is one that will be paused
            await other.leads()  # the leader is silent, so it has been paused
            faults["leader paused"] += 1
            service.lead_to(other.collector_port)
            await story.progressed.wait()
            stopping.signal(signal.SIGCONT)
            await stopping.gone.wait()
            faults["leader woke up"] += 1
            if leader.stepped_down() == before and not stopping.killed:  # as it is once the story is over
                wrong.append(f"{leader.name}, paused {where}, has ended for another reason than that it lost its Lease")


def too_late(lines: Iterable[str], namespace: str) -> Iterator[tuple[str, int]]:
    """What candidates asked to be stored while the Lease named another one, and how each was answered.

    But for what was not answered, as its client was gone: whether that is stored the history knows.
    """
    holder = ""
    for line in lines:
        if f'"namespace":"{namespace}"' not in line or not line.endswith("}\n"):  # the last one may still be written
            continue
        request = json.loads(line)
        target, user = request["objectRef"], request["user"].get("username", "")
        code = request.get("responseStatus", {}).get("code", BROKEN_OFF)
        if request["verb"] not in WRITES or user not in CANDIDATES:
            continue
        if target["resource"] == LEASES.plural:
            holder = request["responseObject"]["spec"]["holderIdentity"] if code < min(REFUSED) else holder
        elif holder not in {"", user} and target["resource"] != EVENTS.plural and code < BROKEN_OFF:
            yield f"{user}: {request['verb']} {target['resource']} {target.get('name', '')}", code


SCENARIOS = (Scenario("leader paused", paused, rounds=10),)

"""A Study on a real API server whose kubelet, sidecars and faults follow a script, one thing after the other.

Nothing happens before the operator is done with all that happened before. So what the Study comes to depends on the
seed alone, however often operators are killed on the way and whatever befalls their requests: `Outcome`s can be
compared.
"""

import asyncio
import contextlib
import functools
import itertools
import re
import socket
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import aiohttp

from chaos.operators import Operators, background
from chaos.outcome import Outcome, outcome
from chaos.script import Deed, Script
from chaos.seen import Seen
from cluster.scripted import PRECISION, Scene, now
from halvard.decide import decide
from halvard.kube import PODS, SERVICES, STUDIES, TRIALS, Conflict, Kube, KubeError, Manifest, NotFound, Resource
from halvard.pods import LABEL_TRIAL
from halvard.sessions import Session
from halvard.study import Study
from halvard.trial import Trial
from history import History, Sent
from history.audit import entries, histories_of
from history.logged import heard
from lab.audit import Log
from lab.control_plane import ControlPlane

T = TypeVar("T")
NAMESPACES = Resource("", "v1", "namespaces")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
PATIENCE = 120.0  # seconds until an operator that does nothing is held to be stuck
PAUSE = 0.05  # seconds before a request is sent again
RESERVED: list[socket.socket] = []  # of ports that stories were given
SERVICE = {"clusterIP": "None", "ports": [{"name": "collector", "port": 8443}]}  # without a selector
EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
numbers = itertools.count(1)


class Stuck(Exception):  # noqa: N818  # what is the case
    """The operator does not get any further."""


class Story:
    """One Study in a namespace of its own. Use `begin`."""

    def __init__(self, scene: Scene, script: Script, operators: Operators) -> None:
        """Nothing is there yet."""
        self.scene = scene
        self.script = script
        self.operators = operators
        self.log = Log(scene.control_plane.audit)
        self.seen = Seen(scene.control_plane, scene.namespace)
        self.deeds: Counter[str] = Counter()
        self.patience = PATIENCE
        self.retries = 0  # requests of sidecars and kubelet that had to be sent again
        self.progressed = asyncio.Event()  # set after every deed
        self._tokens: dict[str, str] = {}
        self._started: set[str] = set()
        self._let_go: set[str] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def begin(cls, control_plane: ControlPlane, script: Script) -> AsyncIterator["Story"]:
        """A namespace, and what an operator has to be told to serve it alone; the Study is not there yet."""
        kube = await Kube.connect(control_plane.kubeconfig)
        namespace = f"chaos-{next(numbers)}"
        await kube.create(NAMESPACES, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await kube.create(SERVICE_ACCOUNTS, namespace, account)
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "halvard"}, "spec": SERVICE}
        await kube.create(SERVICES, namespace, service)
        with tempfile.TemporaryDirectory(prefix="halvard-chaos-") as directory:
            scene = Scene(control_plane, namespace, kube, Path(directory))
            port = lasting_port()
            url = f"https://127.0.0.1:{port}"
            scene.settings = replace(
                scene.settings, collector_port=port, collector_url=url, metrics_port=lasting_port()
            )
            environment = {**scene.environment(), "HALVARD_SERVICE": "halvard"}
            story = cls(scene, script, Operators(environment, Path(directory, "operator.log")))
            async with background(story.seen.watch()), closing(kube):
                yield story

    async def run(self, operator: AbstractAsyncContextManager[object]) -> Outcome:
        """Plays the script to its end while `operator` keeps operators alive; raises Stuck."""
        async with operator:
            await self.apply()
            for number in itertools.count():
                await self.until(self.idle)
                if self.over:
                    return self.outcome()
                await self._act(self.script.deed(number))
                self.progresses()
        raise AssertionError("not reached")

    # --- what is the case -----------------------------------------------------------------------------------------

    @property
    def study_key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.scene.namespace, "search"

    @property
    def study(self) -> Study | None:
        """The Study as it is stored."""
        found = self.seen.cache.studies.get(self.study_key)
        return found.value if found and isinstance(found.value, Study) else None

    @property
    def over(self) -> bool:
        """Whether the Study has ended."""
        return self.study is not None and self.study.status.state in ("Complete", "Failed")

    def trials(self) -> list[Trial]:
        """The Trials as they are stored."""
        return sorted((item.value for item in self.seen.cache.trials.everything()), key=lambda trial: trial.index)

    def _budget(self, index: int) -> int:
        """What a trial is to train to, as it is stored."""
        return next(trial.spec.budget for trial in self.trials() if trial.index == index)

    def index(self, pod: Manifest) -> int:
        """Of the trial that a Pod belongs to."""
        return next(trial.index for trial in self.trials() if trial.name == pod["metadata"]["labels"][LABEL_TRIAL])

    def live(self) -> Iterator[tuple[Trial, Manifest]]:
        """Every trial that has a leg to run, with the Pod that runs it."""
        pods = {manifest["metadata"]["name"]: manifest for manifest in self.there() if runs(manifest)}
        for trial in self.trials():
            if trial.assigned and (pod := pods.get(f"{trial.name}-{trial.attempt}")):
                yield trial, pod

    def idle(self) -> bool:
        """Whether the operator is done: one that is started now would write nothing, and every leg runs."""
        cache = self.seen.cache
        found = cache.studies.get(self.study_key)
        if found is None or not isinstance(found.value, Study) or self._to_do():
            return False
        live = {trial.index for trial, _ in self.live()}
        if live != {trial.index for trial in self.trials() if trial.assigned}:
            return False
        if self.over and any(map(runs, self.there())):
            return False
        try:
            session = Session(cache, found.value, found.version)
        except ValueError:
            return False  # the watches are not at the same point yet
        clock = time.time()
        return not decide(session.progress, session.gather(clock), clock).actions

    def outcome(self) -> Outcome:
        """What became of it so far."""
        assert self.study is not None
        latest = {entry.name: entry.stored for entry in self.seen.stored if entry.kind == TRIALS.plural}
        return outcome(self.study, [dict(trial) for _, trial in sorted(latest.items())], self.seen.pods.values())

    def history(self) -> History:
        """All that was stored on the way, for the history checker.

        Where a client dies, the API server may do what it asked for and log that it did not: the watch knows better.
        """
        logged = entries(self.log.lines(), self.scene.namespace)
        known = {(entry.uid, entry.place) for entry in logged}
        unlogged = [entry for entry in self.seen.stored if (entry.uid, entry.place) not in known]
        found = sorted([*logged, *unlogged], key=lambda entry: entry.place)
        results = heard(self.operators.log.read_text().splitlines())
        history = histories_of(found, self.scene.namespace, results)[-1]
        # who was not told that a Pod is on its way out deletes it again
        writes = [write for write in history.writes or () if write.changed or not write.what.startswith("delete ")]
        return replace(history, sent=tuple(self.scene.sent), writes=tuple(writes), precision=PRECISION)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Plays the kubelet until something holds; raises Stuck."""
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    self.seen.changed.clear()
                    for pod in self._to_do():
                        await self.plays_kubelet(pod)
                    if holds():
                        return
                    with contextlib.suppress(TimeoutError):  # some things take only time
                        await asyncio.wait_for(self.seen.changed.wait(), 0.25)
        except TimeoutError as error:
            raise self.stuck() from error

    def progresses(self) -> None:
        """A deed is done."""
        self.progressed.set()
        self.progressed.clear()

    def stuck(self) -> Stuck:
        """What is the case where nothing happens."""
        states = [f"{t.name}-{t.attempt} {t.status.state} {t.done}/{t.spec.budget}" for t in self.trials()]
        pods = [f"{pod['metadata']['name']} {pod['status'].get('phase')}" for pod in self.there()]
        return Stuck(f"nothing happens: {', '.join(states)}; {', '.join(pods)}")

    # --- what is done ---------------------------------------------------------------------------------------------

    async def apply(self) -> None:
        """The user applies the Study."""
        with contextlib.suppress(Conflict):
            await self._insist(lambda: self.scene.apply(**self.script.study()))

    async def _act(self, deed: Deed) -> None:
        trial, pod = min(self.live(), key=lambda leg: self.script.turn(leg[0].index, leg[0].spec.budget))
        self.deeds[deed] += 1
        budget = trial.spec.budget
        report = self.script.report(trial.index, budget)
        match deed:
            case "crashes":
                await self._ends(pod, code=1)
            case "evicted":
                await self._ends(pod, code=137, conditions=[{**EVICTED, "lastTransitionTime": now()}])
            case "last words":
                self.sends(pod, report)
                await self._ends(pod, report=report)
            case "reports":
                if budget > 1:
                    await self.push(pod, self.script.report(trial.index, budget, before=1))
                verdict = await self.push(pod, report)
                if "stop" in verdict:
                    await self._ends(pod, report=report)
                else:  # another leg, in the same Pod: that is known here when the turn of the next leg comes
                    await self.until(lambda: self._budget(trial.index) >= verdict["budget"])

    async def found_by_another(self) -> None:
        """Lets an operator find what is there now, look at it once and, as somebody touched the Study, once more."""
        async with self.operators.undisturbed(), asyncio.timeout(PATIENCE):
            while await self._turns() < 2:  # the first one is over then, with all that it wrote
                study = await self.scene.study()
                version, value = study["metadata"]["resourceVersion"], {"looked-at": str(time.time())}
                with contextlib.suppress(Conflict):
                    part = "metadata/annotations"
                    await self.scene.kube.patch(STUDIES, *self.study_key, version=version, part=part, value=value)
                await asyncio.sleep(PAUSE)

    async def _turns(self) -> float:
        """How many turns the operator that runs has begun."""
        try:
            found = re.search(
                r"^halvard_decision_duration_seconds_count (\S+)$", await self.scene.metrics(), re.MULTILINE
            )
        except (aiohttp.ClientError, OSError):
            return 0
        return float(found[1]) if found else 0

    async def forget(self, resource: Resource) -> None:
        """Somebody deletes the operators' own object of this kind."""
        with contextlib.suppress(NotFound):
            found = await self.scene.kube.get(resource, self.scene.namespace, "halvard")
            await self.scene.kube.delete(resource, self.scene.namespace, "halvard", found["metadata"]["uid"])

    def sends(self, pod: Manifest, report: Manifest) -> None:
        """Notes what a Pod tells, on whatever way."""
        self.scene.sent.append(Sent(pod["metadata"]["uid"], report["step"], report["metrics"]["loss"]))

    async def push(self, pod: Manifest, *reports: Manifest) -> Manifest:
        """The Pod's sidecar pushes reports until it has a verdict; returns that."""
        uid = pod["metadata"]["uid"]
        for report in reports:
            self.sends(pod, report)
        if uid not in self._tokens:
            self._tokens[uid] = await self._insist(lambda: self.scene.token(pod))
        headers = {"Authorization": f"Bearer {self._tokens[uid]}"}
        url = f"{self.scene.settings.collector_url}/v1/reports"
        context = ssl.create_default_context(cafile=str(self.scene.directory / "ca.crt"))
        try:
            async with asyncio.timeout(self.patience), aiohttp.ClientSession(headers=headers) as session:
                while True:
                    body = {"reports": reports, "elapsed": max(0.0, time.time() - started_at(pod))}
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        async with session.post(url, json=body, ssl=context) as answer:
                            if answer.status == 200:  # and not 202: not decided yet
                                verdict: Manifest = await answer.json()
                                return verdict
                    self.retries += 1
                    await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            raise Stuck(f"nobody answers {pod['metadata']['name']} its report at step {reports[-1]['step']}") from error

    async def ends(self, pod: Manifest, **how: Any) -> None:
        """The kubelet says that a Pod has ended."""
        with contextlib.suppress(NotFound):
            await self._insist(lambda: self.scene.ends(pod, **how))

    async def _ends(self, pod: Manifest, **how: Any) -> None:
        """The same; and it is known here when it returns."""
        await self.ends(pod, **how)
        uid = pod["metadata"]["uid"]
        await self.until(lambda: uid in self.seen.deleted or not runs(self.seen.pods[uid]))

    def there(self) -> list[Manifest]:
        """Every Pod that there is."""
        return [pod for uid, pod in self.seen.pods.items() if uid not in self.seen.deleted]

    def _to_do(self) -> list[Manifest]:
        """Pods that the kubelet has not started, or not let go, although it should."""
        return [
            pod
            for pod in self.there()
            if pod["metadata"]["uid"] not in (self._let_go if leaves(pod) else self._started)
        ]

    async def plays_kubelet(self, pod: Manifest) -> None:
        """Runs a Pod, or lets go of it, even where the API server cannot be told at once."""
        await self._insist(functools.partial(self._kubelet, pod))

    async def _kubelet(self, pod: Manifest) -> None:
        """Gives a Pod a node and runs it, or lets go of one that was deleted."""
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        with contextlib.suppress(NotFound):
            current = await self.scene.kube.get(PODS, self.scene.namespace, name)
            if leaves(pod):
                if current["status"].get("phase") == "Running":
                    await self.scene.ends(pod, code=143)
                at_once = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
                await self.scene.kube._request("delete", PODS, PODS.path(self.scene.namespace, name), body=at_once)
            else:
                if "nodeName" not in current["spec"]:  # it has one where an answer was lost
                    await self.scene.is_bound(pod)
                await self.scene.runs(pod, now())
        (self._let_go if leaves(pod) else self._started).add(uid)

    async def _insist(self, request: Callable[[], Awaitable[T]]) -> T:
        """Does what an API server may be unable to do now until it has done it; raises NotFound, Conflict."""
        while True:
            try:
                return await request()
            except NotFound:
                raise
            except KubeError as error:
                if isinstance(error, Conflict) and error.exists:
                    raise  # it was done, and the answer was lost
                self.retries += 1
                await asyncio.sleep(PAUSE)


@contextlib.asynccontextmanager
async def closing(kube: Kube) -> AsyncIterator[None]:
    """Closes its connections at the end."""
    try:
        yield
    finally:
        await kube.close()


def leaves(pod: Manifest) -> bool:
    """Whether somebody deleted it."""
    return "deletionTimestamp" in pod["metadata"]


def started_at(pod: Manifest) -> float:
    """When the kubelet says that its trainer began to run."""
    [trainer] = pod["status"]["containerStatuses"]
    return datetime.fromisoformat(trainer["state"]["running"]["startedAt"]).timestamp()


def runs(pod: Manifest) -> bool:
    """Whether the kubelet says so."""
    return pod["status"].get("phase") == "Running" and not leaves(pod)


def lasting_port() -> int:
    """A free port that no outgoing connection is given, nor another story: free when an operator has died."""
    while True:
        port, reserved = Random().randrange(10_000, 32_000), socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            reserved.bind(f"\0halvard-port-{port}")  # a name of this machine, until this process ends
            socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True).close()  # as an operator does
            RESERVED.append(reserved)
            return port
        reserved.close()

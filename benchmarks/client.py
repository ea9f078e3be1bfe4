"""One bare client that is user, scheduler, kubelet and sidecars to the operator."""

import asyncio
import contextlib
import itertools
import json
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

import aiohttp

from benchmarks.bed import NAMESPACE, Bed
from cluster.scripted import binding, study
from halvard.kube import PODS, STUDIES, TRIALS, Manifest, Resource
from halvard.pods import LABEL_STUDY

AUDIENCE = "halvard.dev/reports"
ACCOUNTS = Resource("", "v1", "serviceaccounts")
PATIENCE = 120.0  # seconds until something that should happen is taken for broken
CONNECTIONS = 64
ADDRESSES = 32  # of sidecars: Pods do not share one, and the operator takes only so many connections of each
MERGE_PATCH = "application/merge-patch+json"
AT_ONCE = {"gracePeriodSeconds": 0}  # no kubelet would confirm that a Pod with a node has ended


@dataclass(frozen=True, slots=True)
class Arrival:
    """A Pod that is there now, and when the watch said so (`time.perf_counter`)."""

    pod: Manifest
    at: float


class Client:
    """An aiohttp session on the API server with nothing in between, a watch on Pods, and one on the operator."""

    def __init__(self, bed: Bed, server: aiohttp.ClientSession, sidecars: Sequence[aiohttp.ClientSession]) -> None:
        """Use `connect`."""
        self.bed = bed
        self._server = server
        self._sidecars = sidecars
        self._turns = itertools.cycle(sidecars)
        self._arrivals: defaultdict[str, asyncio.Queue[Arrival]] = defaultdict(asyncio.Queue)
        self._failures: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._watching: asyncio.Task[None] | None = None
        self._bound: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(cls, bed: Bed) -> Self:
        """Connects to both, and watches Pods from now on."""
        plane = bed.control_plane
        trusted = ssl.create_default_context(cafile=str(plane.certificate))
        server = aiohttp.ClientSession(
            plane.server,
            headers={"Authorization": f"Bearer {plane.tokens['admin']}"},
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trusted),
        )
        ca = ssl.create_default_context(cafile=str(plane.directory / "tls" / "ca.crt"))
        # A sidecar's connection is closed while it idles between two rungs: each report pays for a handshake.
        connectors = (
            aiohttp.TCPConnector(limit=0, ssl=ca, force_close=True, local_addr=(f"127.0.1.{number + 1}", 0))
            for number in range(ADDRESSES)
        )
        client = cls(bed, server, [aiohttp.ClientSession(connector=connector) for connector in connectors])
        version = (await client.list(PODS))["metadata"]["resourceVersion"]
        client._watching = asyncio.create_task(client._watch(version))
        return client

    async def close(self) -> None:
        """Ends the watch and closes every connection."""
        if self._watching:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await asyncio.gather(*self._bound)
        await self._server.close()
        for sidecar in self._sidecars:
            await sidecar.close()

    # --- the API server -------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        return await self._send("POST", resource.path(NAMESPACE), manifest)

    async def get(self, resource: Resource, name: str) -> Manifest:
        return await self._send("GET", resource.path(NAMESPACE, name))

    async def list(self, resource: Resource, study: str = "") -> Manifest:
        return await self._send("GET", resource.path(NAMESPACE) + _selector(study))

    async def patch_status(self, resource: Resource, name: str, status: Manifest) -> Manifest:
        return await self._send("PATCH", resource.path(NAMESPACE, name, "status"), {"status": status}, MERGE_PATCH)

    async def clear(self, study: str) -> None:
        """Deletes a Study and, as nobody collects garbage here, its Trials and Pods."""
        await self._send("DELETE", STUDIES.path(NAMESPACE, study))
        for resource in (TRIALS, PODS):
            await self._send("DELETE", resource.path(NAMESPACE) + _selector(study), AT_ONCE)

    async def delete(self, resource: Resource, name: str) -> None:
        await self._send("DELETE", resource.path(NAMESPACE, name), AT_ONCE)

    async def token(self, pod: Manifest) -> str:
        """The token that the kubelet would have projected into the Pod."""
        metadata = pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE], "boundObjectRef": bound},
        }
        answer = await self._send("POST", ACCOUNTS.path(NAMESPACE, "default", "token"), request)
        return str(answer["status"]["token"])

    async def _send(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Manifest:
        data = None if body is None else json.dumps(body).encode()
        async with self._server.request(method, path, data=data, headers={"Content-Type": kind}) as answer:
            text = await answer.read()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {text.decode()[:500]}")
        manifest: Manifest = json.loads(text)
        return manifest

    # --- what a watch sees ----------------------------------------------------------------------------------------

    async def arrival(self, of: str) -> Arrival:
        """Returns the next Pod of a study, or the one of that name that belongs to none; each of them once."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._arrivals[of].get()
        except TimeoutError:
            if self._watching and self._watching.done():
                self._watching.result()  # raises what ended the watch
            raise RuntimeError(f"no Pod of {of} came in {PATIENCE:.0f} s") from None

    def has_arrival(self, of: str) -> bool:
        """Whether a Pod of the study is there that nobody asked for yet."""
        return not self._arrivals[of].empty()

    def failure(self, pod: str) -> asyncio.Event:
        """Returns what is set once the watch tells that the Pod of that name failed."""
        return self._failures[pod]

    async def _watch(self, version: str) -> None:
        """Watches for ever: where the API server ends the watch of a client that lags behind, it goes on from there."""
        forever = aiohttp.ClientTimeout(total=None)
        while True:
            query = {"watch": "1", "resourceVersion": version}
            async with self._server.get(PODS.path(NAMESPACE), params=query, timeout=forever) as answer:
                rest = b""
                async for chunk in answer.content.iter_any():
                    at = time.perf_counter()
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        version = self._heard(json.loads(line), at)

    def _heard(self, event: Manifest, at: float) -> str:
        if event["type"] == "ERROR":
            raise RuntimeError(f"the watch broke: {event['object']}")
        metadata = event["object"]["metadata"]
        if event["object"]["status"].get("phase") == "Failed":
            self._failures[metadata["name"]].set()
        if event["type"] == "ADDED":
            of = metadata.get("labels", {}).get(LABEL_STUDY) or metadata["name"]
            self._arrivals[of].put_nowait(Arrival(event["object"], at))
            self._bound.add(asyncio.create_task(self._bind(event["object"])))
        return str(metadata["resourceVersion"])

    # --- scheduler, kubelet and sidecars --------------------------------------------------------------------------

    async def _bind(self, pod: Manifest) -> None:
        """The scheduler gives a new Pod a node at once; a Pod that is going by then needs none."""
        path = PODS.path(NAMESPACE, pod["metadata"]["name"], "binding")
        async with self._server.post(path, json=binding(pod)) as answer:
            if answer.status not in {HTTPStatus.CREATED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                raise RuntimeError(f"POST {path}: {(await answer.text())[:500]}")

    async def runs(self, pod: Manifest) -> None:
        """The kubelet says that trainer and collector run."""
        await self._says(pod, "Running", {"running": {"startedAt": _now()}})

    async def ends(self, pod: Manifest, code: int = 0) -> None:
        """The kubelet says that both have ended."""
        ended = {"exitCode": code, "startedAt": _now(), "finishedAt": _now()}
        await self._says(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    async def _says(self, pod: Manifest, phase: str, state: Manifest) -> None:
        common = {"image": "none", "imageID": "none", "restartCount": 0, "ready": False, "state": state}
        status = {
            "phase": phase,
            "startTime": _now(),
            "containerStatuses": [{**common, "name": "trainer"}],
            "initContainerStatuses": [{**common, "name": "halvard-collector"}],
        }
        await self.patch_status(PODS, pod["metadata"]["name"], status)

    async def push(self, token: str, step: int, budget: int, loss: float) -> Manifest:
        """The Pod's sidecar reports, asking again while the decision is pending; returns the answer."""
        report = {"step": step, "metrics": {"loss": loss}, "checkpoint": f"step-{step}"}
        body, headers = {"reports": [report], "budget": budget, "elapsed": 1.0}, {"Authorization": f"Bearer {token}"}
        url = self.bed.operator.settings["HALVARD_COLLECTOR_URL"] + "/v1/reports"
        sidecar = next(self._turns)
        async with asyncio.timeout(PATIENCE):
            while True:
                async with sidecar.post(url, json=body, headers=headers) as answer:
                    verdict: Manifest = await answer.json()
                if answer.status == HTTPStatus.OK:
                    return verdict
                if answer.status != HTTPStatus.ACCEPTED:
                    raise RuntimeError(f"the operator answered {answer.status}: {verdict}")


@contextlib.asynccontextmanager
async def connected(bed: Bed) -> AsyncIterator[Client]:
    """A client for the time of one measurement."""
    client = await Client.connect(bed)
    try:
        yield client
    finally:
        await client.close()


def search(name: str, **spec: Any) -> Manifest:
    """A Study for the least loss on the ladder 1, 3, 9."""
    return {**study(**{"limits": {"trials": 100_000}, **spec}), "metadata": {"name": name}}


def copy_of(pod: Manifest, name: str) -> Manifest:
    """The same Pod again, but nobody's: what a bare client would have to create."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}


def budget_of(pod: Manifest) -> int:
    """What the trial is to train until, as its Pod is told."""
    trainer = next(container for container in pod["spec"]["containers"] if container["name"] == "trainer")
    return next(int(variable["value"]) for variable in trainer["env"] if variable["name"] == "HALVARD_BUDGET")


async def in_parallel(requests: Iterable[Awaitable[object]], at_once: int = 32) -> None:
    """Waits for all of them, a few at a time."""
    waiting = iter(requests)

    async def one_after_the_other() -> None:
        for request in waiting:
            await request

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


def _selector(study: str) -> str:
    return f"?labelSelector={LABEL_STUDY}%3D{study}" if study else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

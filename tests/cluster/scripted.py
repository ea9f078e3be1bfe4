"""What surrounds the operator in the tests of this directory: a kubelet and sidecars that do just what a test says."""

import asyncio
import contextlib
import io
import json
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from halvard.kube import PODS, STUDIES, TRIALS, Conflict, Kube, KubeError, Manifest, Resource
from halvard.lease import LeaseLost
from halvard.operator import Settings, run
from history import Sent
from lab.control_plane import OPERATOR, ControlPlane, free_port

T = TypeVar("T")
BINDINGS = Resource("", "v1", "bindings")
TOKENS = Resource("", "v1", "serviceaccounts/default/token")  # a part of that one object, to which tokens are posted
PATIENCE = 60.0
PRECISION = 0.1  # seconds that the word of a sidecar may take to be heard


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """Looks until there is something to see and returns it."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await look()):  # noqa: ASYNC110  # what is looked at is in the API server
            await asyncio.sleep(0.05)
    return found


@dataclass
class Scene:
    """One namespace with an operator that serves it alone; `sent`: what its sidecars have pushed.

    `began`: when each Pod did, by uid; `scraped`: the metrics of its latest operator when that was stopped.
    `said`: what its operators have logged, None where they had processes of their own.
    """

    control_plane: ControlPlane
    namespace: str
    kube: Kube
    directory: Path
    settings: Settings = field(init=False)
    sent: list[Sent] = field(default_factory=list)
    began: dict[str, float] = field(default_factory=dict)
    scraped: str = ""
    said: str | None = None

    def __post_init__(self) -> None:
        port = free_port()
        kubeconfig = self.directory / "operator.kubeconfig"
        kubeconfig.write_text(json.dumps(self.control_plane.kubeconfig_of(OPERATOR)))
        self.settings = Settings(
            collector_image="collector",
            collector_url=f"https://127.0.0.1:{port}",
            tls_directory=self.directory,
            namespaces=(self.namespace,),
            kubeconfig=kubeconfig,
            lease_namespace=self.namespace,
            host="127.0.0.1",
            collector_port=port,
            metrics_port=free_port(),
        )

    @contextlib.asynccontextmanager
    async def operator(self, until: str = "leading") -> AsyncIterator[None]:
        """Runs the operator as its Deployment would; at the end it is cancelled, as by SIGTERM."""
        log, handler = logging.getLogger("halvard"), logging.StreamHandler(io.StringIO())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        running = asyncio.create_task(self._keep_running())
        try:
            await eventually(lambda: self.says(until))
            yield
            with contextlib.suppress(aiohttp.ClientError):
                self.scraped = await self.metrics()
        finally:
            running.cancel()
            await asyncio.wait([running])
            log.setLevel(logging.NOTSET)
            log.removeHandler(handler)
            self.said = (self.said or "") + handler.stream.getvalue()
            if not running.cancelled():
                running.result()

    async def _keep_running(self) -> None:
        """An operator that could not renew its lease ends, and is started again."""
        while True:
            with contextlib.suppress(LeaseLost, KubeError):
                await run(self.settings)

    async def says(self, state: str) -> bool:
        """Whether the operator is ready, and says that it leads, or stands by."""
        try:
            async with aiohttp.ClientSession() as session, session.get(self.url("readyz")) as answer:
                return (answer.status, await answer.text()) == (200, f"{state}\n")
        except aiohttp.ClientError:
            return False

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.settings.metrics_port}/{path}"

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(self.url("metrics")) as answer:
            return await answer.text()

    def environment(self) -> dict[str, str]:
        """The environment for an operator in a process of its own."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "KUBECONFIG": str(self.settings.kubeconfig),
            "HALVARD_COLLECTOR_IMAGE": self.settings.collector_image,
            "HALVARD_COLLECTOR_URL": self.settings.collector_url,
            "HALVARD_COLLECTOR_PORT": str(self.settings.collector_port),
            "HALVARD_METRICS_PORT": str(self.settings.metrics_port),
            "HALVARD_TLS_DIRECTORY": str(self.settings.tls_directory),
            "HALVARD_NAMESPACES": self.namespace,
            "HALVARD_LEASE_NAMESPACE": self.namespace,
            "HALVARD_IDENTITY": "the only one",
        }

    # --- studies and trials ---------------------------------------------------------------------------------------

    async def apply(self, **spec: Any) -> None:
        await self.kube.create(STUDIES, self.namespace, study(**spec))

    async def study(self) -> Manifest:
        return await self.kube.get(STUDIES, self.namespace, "search")

    async def change(self, **spec: Any) -> None:
        """Changes the Study's spec as a user does, however often the operator writes in between."""
        while True:
            before = await self.study()
            version = before["metadata"]["resourceVersion"]
            try:
                value = {**before["spec"], **spec}
                await self.kube.patch(STUDIES, self.namespace, "search", version=version, part="spec", value=value)
            except Conflict:
                continue
            return

    async def condition(self, kind: str, status: str, reason: str) -> Manifest:
        """Waits for a condition of the Study."""

        async def look() -> Manifest | None:
            conditions = (await self.study()).get("status", {}).get("conditions", [])
            wanted = {"type": kind, "status": status, "reason": reason}
            return next((c for c in conditions if wanted.items() <= c.items()), None)

        return await eventually(look)

    async def trials(self) -> list[Manifest]:
        return [item async for page in self.kube.pages(TRIALS, self.namespace) for item in page.items]

    async def trial(self, index: int) -> Manifest:
        return await self.kube.get(TRIALS, self.namespace, f"search-{index:04d}")

    async def trial_in(self, index: int, state: str) -> Manifest:
        """Waits for a trial's state."""

        async def look() -> Manifest | None:
            trial = await self.trial(index)
            return trial if trial.get("status", {}).get("state") == state else None

        return await eventually(look)

    # --- Pods -----------------------------------------------------------------------------------------------------

    async def pods(self) -> list[Manifest]:
        return [item async for page in self.kube.pages(PODS, self.namespace) for item in page.items]

    async def pod(self, trial: int, attempt: int = 1) -> Manifest:
        """Waits for the Pod of an attempt."""
        name = f"search-{trial:04d}-{attempt}"

        async def look() -> Manifest | None:
            return next((pod for pod in await self.pods() if pod["metadata"]["name"] == name), None)

        return await eventually(look)

    async def is_bound(self, pod: Manifest) -> None:
        """The scheduler gives the Pod a node."""
        await self.kube.create(BINDINGS, self.namespace, binding(pod))

    async def runs(self, pod: Manifest, at: str = "") -> None:
        """The kubelet says that trainer and collector run, from now on if not since then."""
        await self._status(pod, "Running", {"running": {}}, {"running": {}}, at=at)

    async def ends(
        self, pod: Manifest, code: int = 0, report: Manifest | None = None, conditions: Sequence[Manifest] = ()
    ) -> None:
        """The kubelet says that both have ended; `report` is what the collector left in its termination message."""
        ended = {"finishedAt": now(), "exitCode": code}
        trainer = {"terminated": {**ended, "reason": "Error" if code else "Completed"}}
        collector = {"terminated": {**ended, "message": json.dumps(report) if report else ""}}
        await self._status(pod, "Failed" if code else "Succeeded", trainer, collector, conditions=conditions)

    async def _status(
        self,
        pod: Manifest,
        phase: str,
        trainer: Manifest,
        collector: Manifest,
        *,
        conditions: Sequence[Manifest] = (),
        at: str = "",
    ) -> None:
        """Says it of a Pod whose containers have started when that was said first, else then or now."""
        name = pod["metadata"]["name"]
        current = await self.kube.get(PODS, self.namespace, name)
        began = current["status"].get("startTime") or at or now()
        self.began[current["metadata"]["uid"]] = datetime.fromisoformat(began).timestamp()
        for state in (*trainer.values(), *collector.values()):
            state["startedAt"] = began
        common = {"image": "none", "imageID": "none", "restartCount": 0, "ready": False}
        status = {
            **current["status"],
            "phase": phase,
            "startTime": began,
            "conditions": [*current["status"].get("conditions", ()), *conditions],
            "containerStatuses": [{**common, "name": "trainer", "state": trainer}],
            "initContainerStatuses": [{**common, "name": "halvard-collector", "state": collector}],
        }
        version = current["metadata"]["resourceVersion"]
        await self.kube.patch(PODS, self.namespace, name, version=version, part="status", value=status)

    async def kubectl(self, *arguments: str) -> str:
        """Runs kubectl beside the operator."""
        done = await asyncio.to_thread(self.control_plane.kubectl, "-n", self.namespace, *arguments)
        return done.stdout.strip()

    # --- sidecars -------------------------------------------------------------------------------------------------

    async def token(self, pod: Manifest) -> str:
        """The token the kubelet would have projected into the Pod."""
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        spec = {"audiences": ["halvard.dev/reports"], "boundObjectRef": bound}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = (await self.kube.create(TOKENS, self.namespace, request))["status"]["token"]
        return token

    async def push(self, pod: Manifest, step: int, loss: float, token: str = "") -> tuple[int, Manifest]:
        """The Pod's sidecar pushes a report, and asks again while the decision is pending."""
        report = {"step": step, "metrics": {"loss": loss}, "checkpoint": f"step-{step}"}
        self.sent.append(Sent(pod["metadata"]["uid"], step, loss))
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        headers = {"Authorization": f"Bearer {token or await self.token(pod)}"}
        elapsed = time.time() - self.began.get(pod["metadata"]["uid"], time.time())
        url, body = f"{self.settings.collector_url}/v1/reports", {"reports": [report], "elapsed": max(0.0, elapsed)}
        async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.post(url, json=body, ssl=context) as answer:
                        if answer.status not in {202, 503}:
                            return answer.status, await answer.json()
                await asyncio.sleep(0.05)

    async def leg(self, trial: int, loss: float, *, attempt: int = 1, step: int = 1) -> Manifest:
        """Runs one leg up to the verdict on its report and returns it; told to stop, the Pod ends."""
        pod = await self.pod(trial, attempt)
        await self.runs(pod)
        _, verdict = await self.push(pod, step, loss)
        if "stop" in verdict:
            await self.ends(pod)
        return verdict


def study(**spec: Any) -> Manifest:
    """A search for the least loss, one trial at a time, on the ladder 1, 3, 9."""
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "search"},
        "spec": {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "float": {"min": 0.001, "max": 0.1, "scale": "log"}}],
            "scheduler": {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
            "parallelism": 1,
            "limits": {"trials": 20},
            "seed": 7,
            "template": template(),
            **spec,
        },
    }


def now() -> str:
    """The time as a kubelet writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def binding(pod: Manifest) -> Manifest:
    """What the scheduler creates for a Pod that it has found a node for."""
    target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}


def template(**spec: Any) -> Manifest:
    """A PodTemplateSpec with one container, the trainer."""
    resources = {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}}
    trainer = {"name": "trainer", "image": "none", "command": ["train"], "resources": resources}
    return {"spec": {"containers": [trainer], **spec}}

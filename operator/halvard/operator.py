"""`halvard operator`: everything is made and connected here, and nothing decided."""

import asyncio
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import web

from halvard import endpoint, handlers, metrics, tls
from halvard.apply import Applier
from halvard.cache import Cache
from halvard.identity import Identity
from halvard.inbox import Inbox
from halvard.kube import PODS, Kube, KubeError
from halvard.lease import Lease, LeaseLost
from halvard.pods import LABEL_STUDY, PodSettings
from halvard.queue import Key, Queue
from halvard.reconcile import Reconciler

RELIST_PERIOD = 300.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator has to be told. Without `namespaces` it serves all of them; port 0 takes a free one."""

    collector_image: str
    collector_url: str
    tls_directory: Path
    namespaces: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    lease_namespace: str = "default"
    lease_name: str = "halvard"
    identity: str = ""
    host: str = "0.0.0.0"  # noqa: S104  # Pods of every node push here
    collector_port: int = 8443
    metrics_port: int = 8080
    relist_period: float = RELIST_PERIOD

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads `HALVARD_*`; raises ValueError naming the variable that is missing or wrong."""
        return cls(
            collector_image=required(environment, "HALVARD_COLLECTOR_IMAGE"),
            collector_url=required(environment, "HALVARD_COLLECTOR_URL"),
            tls_directory=Path(environment.get("HALVARD_TLS_DIRECTORY", "/var/lib/halvard/tls")),
            namespaces=tuple(filter(None, environment.get("HALVARD_NAMESPACES", "").split(","))),
            kubeconfig=Path(environment["KUBECONFIG"]) if environment.get("KUBECONFIG") else None,
            lease_namespace=environment.get("HALVARD_LEASE_NAMESPACE") or own_namespace(),
            lease_name=environment.get("HALVARD_LEASE_NAME", "halvard"),
            identity=environment.get("HALVARD_IDENTITY", ""),
            collector_port=port(environment, "HALVARD_COLLECTOR_PORT", 8443),
            metrics_port=port(environment, "HALVARD_METRICS_PORT", 8080),
        )


def main() -> None:
    """Runs the operator until SIGTERM or SIGINT; ends with an error where it must be started anew."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment(os.environ)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    try:
        asyncio.run(until_signalled(settings))
    except LeaseLost as error:
        raise SystemExit(f"stopping, for somebody else may lead: {error}") from error
    except KubeError as error:
        raise SystemExit(f"stopping, for the API server said no: {error}") from error


async def until_signalled(settings: Settings) -> None:
    """Runs; a signal cancels it, also while it still waits for its turn to lead (later, kopf takes the signals)."""
    running = asyncio.create_task(run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


async def run(settings: Settings) -> None:
    """Waits to lead, and leads until it is cancelled or signalled; raises LeaseLost when it may not lead any more."""
    cache = Cache()
    measured = metrics.Metrics(cache)
    kube = await Kube.connect(settings.kubeconfig, measured.api_request)
    identity = settings.identity or f"{socket.gethostname()}_{uuid4().hex[:8]}"
    lease = Lease(kube, settings.lease_namespace, settings.lease_name, identity)
    ready = asyncio.Event()
    probes = web.AppRunner(metrics.application(measured, ready.is_set), access_log=None)
    try:
        await probes.setup()
        await web.TCPSite(probes, settings.host, settings.metrics_port).start()
        await lease.acquire()
        measured.leader.set(1)
        leader = Leader(settings, kube, cache, measured, identity)
        await first_of(lease.hold, functools.partial(leader.lead, ready))
    finally:
        await probes.cleanup()
        await lease.release()
        await kube.close()


class Leader:
    """Everything that only the leader has."""

    def __init__(self, settings: Settings, kube: Kube, cache: Cache, measured: metrics.Metrics, identity: str) -> None:
        """Makes and connects the parts; nothing runs yet."""
        certificates = tls.load_or_create(settings.tls_directory, [urlsplit(settings.collector_url).hostname or ""])
        pods = PodSettings(settings.collector_image, settings.collector_url, certificates.ca_pem)
        inbox = Inbox(cache, self._look_at)
        applier = Applier(kube, cache, measured, pods, identity)
        self._queue = Queue(Reconciler(kube, cache, inbox, applier, measured))
        self._endpoint = endpoint.Endpoint(
            Identity(kube.review_token, pods.audience),
            inbox,
            lambda result: measured.pushes.labels(result).inc(),
            measured.dropped.labels("invalid").inc,
        )
        self._settings, self._certificates = settings, certificates
        self._kube, self._cache, self._metrics = kube, cache, measured

    async def lead(self, ready: asyncio.Event) -> None:
        """Leads until some part of it ends; sets `ready` once it has seen everything and listens."""
        settings = self._settings
        await self._relist()
        application = self._endpoint.application()
        listening = await endpoint.serve(application, settings.host, settings.collector_port, self._certificates)
        ready.set()
        log.info("leading %s", ", ".join(settings.namespaces) or "all namespaces")
        try:
            await first_of(self._queue.run, self._keep_whole, self._watch)
        finally:
            ready.clear()
            await listening.cleanup()

    async def _watch(self) -> None:
        namespaces = self._settings.namespaces
        await handlers.watch(self._kube, self._cache, self._queue.add, self._metrics.heard, namespaces)

    def _look_at(self, study: Key) -> None:
        self._queue.add(study)

    async def _keep_whole(self) -> None:
        """Lists everything again and again: no watch tells of what vanished while it was broken."""
        while True:
            await asyncio.sleep(self._settings.relist_period)
            try:
                await self._relist()
            except KubeError as error:
                log.warning("the list is not complete, the next one will be: %s", error)

    async def _relist(self) -> None:
        for resource, store in handlers.watched(self._cache).items():
            for namespace in self._settings.namespaces or ("",):
                known = [item for item in store.everything() if namespace in {"", item.namespace}]
                pages = self._kube.pages(resource, namespace, LABEL_STUDY if resource == PODS else "")
                for study in await store.replace(pages, known):
                    self._queue.add(study)
            store.forget_deletions()
            self._metrics.heard(resource.plural)


async def first_of(*parts: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs the parts until the first of them ends, and ends the others; raises what it raised.

    The last part starts after all others have: kopf cancels whatever was started after itself when it ends.
    """
    tasks: list[asyncio.Task[None]] = []
    try:
        for part in parts:
            tasks.append(asyncio.create_task(part()))
            await asyncio.sleep(0)
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


def required(environment: Mapping[str, str], name: str) -> str:
    """Returns a variable's value; raises ValueError where it is not set."""
    if not environment.get(name):
        raise ValueError(f"{name} is not set: the operator cannot do without it")
    return environment[name]


def port(environment: Mapping[str, str], name: str, default: int) -> int:
    """Returns a TCP port; raises ValueError where it is none."""
    value = environment.get(name) or str(default)
    if not value.isdecimal() or int(value) >= 2**16:
        raise ValueError(f"{name} is {value!r}; it has to be a port from 0 to 65535")
    return int(value)


def own_namespace() -> str:
    """Returns the namespace this process runs in, `default` outside a cluster."""
    return SERVICE_ACCOUNT.read_text().strip() if SERVICE_ACCOUNT.exists() else "default"

"""`halvard operator`: everything is made and connected here, and nothing decided."""

import asyncio
import functools
import itertools
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from halvard import allowed, handlers, metrics, probes, tls
from halvard.address import Address
from halvard.apply import Applier
from halvard.cache import Cache
from halvard.endpoint import Endpoint
from halvard.identity import Identity
from halvard.inbox import Inbox
from halvard.kube import PODS, Conflict, Kube, KubeError, NoCluster, Unavailable
from halvard.lease import Lease, LeaseLost
from halvard.listener import Limits, Listener
from halvard.pods import LABEL_STUDY, PodSettings
from halvard.queue import Key, Queue
from halvard.reconcile import Reconciler

RELIST_PERIOD = 300.0
FIRST_RELIST = 10.0
FIRST_RETRY = 1.0
OPEN_FILES = 8192  # more than there can be connections; a container begins with 1024
PROBES = Limits(connections=256, strangers=256)  # nobody says who asks for metrics
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator has to be told.

    Without `namespaces` it serves all of them, without `host` at every address, without `service` nobody is told where
    the leader is; port 0 takes a free one.
    """

    collector_image: str
    collector_url: str
    tls_directory: Path
    namespaces: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    lease_namespace: str = "default"
    lease_name: str = "halvard"
    identity: str = ""
    service: str = ""
    pod_ip: str = ""
    allow: frozenset[str] = frozenset()
    host: str = ""
    collector_port: int = 8443
    metrics_port: int = 8080
    relist_period: float = RELIST_PERIOD
    certificate_period: float = tls.LOOK_SECONDS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads `HALVARD_*`; raises ValueError naming the variable that is missing or wrong."""
        service, pod_ip = address(environment)
        return cls(
            collector_image=required(environment, "HALVARD_COLLECTOR_IMAGE"),
            collector_url=https(environment, "HALVARD_COLLECTOR_URL"),
            tls_directory=Path(environment.get("HALVARD_TLS_DIRECTORY", "/var/lib/halvard/tls")),
            namespaces=tuple(filter(None, environment.get("HALVARD_NAMESPACES", "").split(","))),
            kubeconfig=Path(environment["KUBECONFIG"]) if environment.get("KUBECONFIG") else None,
            lease_namespace=environment.get("HALVARD_LEASE_NAMESPACE") or own_namespace(),
            lease_name=environment.get("HALVARD_LEASE_NAME", "halvard"),
            identity=environment.get("HALVARD_IDENTITY", ""),
            service=service,
            pod_ip=pod_ip,
            allow=allowed.parse(environment.get("HALVARD_ALLOW", "")),
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
    allow_open_files()
    try:
        asyncio.run(until_signalled(settings))
    except LeaseLost as error:
        raise SystemExit(f"stopping, for somebody else may lead: {error}") from error
    except NoCluster as error:
        raise SystemExit(str(error)) from error
    except KubeError as error:
        raise SystemExit(f"stopping, for the API server said no: {error}") from error
    except tls.TlsError as error:
        raise SystemExit(f"stopping, for there is no certificate to serve with: {error}") from error
    except tls.CaReplaced as error:
        raise SystemExit(f"stopping, to start anew with it: {error}") from error


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
    identity = settings.identity or f"{socket.gethostname()}_{uuid4().hex[:8]}"
    ready = asyncio.Event()

    def state() -> probes.State:
        return "leading" if ready.is_set() else "standing by" if lease.stands_by else "starting"

    probed = Listener(probes.application(measured, state), lambda _: None, limits=PROBES)
    async with AsyncExitStack() as at_the_end:  # the last that was pushed comes first
        kube = await Kube.connect(settings.kubeconfig, measured.api_request)
        at_the_end.push_async_callback(kube.close)
        lease = Lease(kube, settings.lease_namespace, settings.lease_name, identity)
        await probed.start(settings.host, settings.metrics_port)
        at_the_end.push_async_callback(probed.close)
        at_the_end.push_async_callback(lease.release)
        await lease.acquire()
        kube.may_write = lease.may_write
        measured.leader.set(1)
        leader = Leader(settings, kube, cache, measured, identity)
        await first_of(lease.hold, functools.partial(leader.lead, ready))


class Leader:
    """Everything that only the leader has."""

    def __init__(self, settings: Settings, kube: Kube, cache: Cache, measured: metrics.Metrics, identity: str) -> None:
        """Makes and connects the parts; nothing runs yet."""
        certificates = tls.load_or_create(settings.tls_directory, [urlsplit(settings.collector_url).hostname or ""])
        pods = PodSettings(settings.collector_image, settings.collector_url, certificates.ca_pem, allow=settings.allow)
        inbox = Inbox(cache, self._look_at)
        applier = Applier(kube, cache, measured, pods, identity)
        self._queue = Queue(Reconciler(kube, cache, inbox, applier, measured))
        pushed = Endpoint(Identity(kube.review_token, pods.audience), inbox, measured).application()
        self._listener = Listener(pushed, measured.pushed, certificates.server_context())
        self._settings, self._certificates = settings, certificates
        self._kube, self._cache, self._metrics = kube, cache, measured

    async def lead(self, ready: asyncio.Event) -> None:
        """Leads until some part of it ends; sets `ready` once it has seen everything and listens."""
        settings = self._settings
        await insist(self._relist)
        await self._listener.start(settings.host, settings.collector_port)
        try:
            await insist(self._tell_address)
            ready.set()
            log.info("leading %s", ", ".join(settings.namespaces) or "all namespaces")
            await first_of(self._queue.run, self._keep_whole, self._keep_certified, self._watch)
        finally:
            ready.clear()
            await self._listener.close()

    async def _watch(self) -> None:
        namespaces = self._settings.namespaces
        await handlers.watch(self._kube, self._cache, self._queue.add, self._metrics.heard, namespaces)

    def _look_at(self, study: Key) -> None:
        self._queue.add(study)

    async def _keep_whole(self) -> None:
        """Lists everything again and again: no watch tells of what vanished while it was broken, or before it began."""
        period = self._settings.relist_period
        for delay in itertools.chain([min(FIRST_RELIST, period)], itertools.repeat(period)):
            await asyncio.sleep(delay)
            try:
                await self._relist()
                await self._tell_address()
            except KubeError as error:
                log.warning("the list is not complete, the next one will be: %s", error)

    async def _keep_certified(self) -> None:
        settings = self._settings
        await tls.watch(settings.tls_directory, self._certificates, self._listener.renew, settings.certificate_period)

    async def _tell_address(self) -> None:
        settings = self._settings
        if settings.service:
            port = self._listener.port
            await Address(self._kube, settings.lease_namespace, settings.service, settings.pod_ip, port).write()

    async def _relist(self) -> None:
        for resource, store in handlers.watched(self._cache).items():
            for namespace in self._settings.namespaces or ("",):
                known = [item for item in store.everything() if namespace in {"", item.namespace}]
                pages = self._kube.pages(resource, namespace, LABEL_STUDY if resource == PODS else "")
                await store.replace(pages, known, news=self._queue.add)
            store.forget_deletions()
            self._metrics.heard(resource.plural)


async def insist(work: Callable[[], Awaitable[None]]) -> None:
    """Does what the API server may not be able to do now until it has done it: to end would only ask more of it.

    So with a conflict: the last words of whoever led before may still arrive.
    """
    while True:
        try:
            return await work()
        except (Conflict, Unavailable) as error:
            log.warning("%s; again in a moment", error)
            await asyncio.sleep(max(FIRST_RETRY, error.retry_after))


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


def https(environment: Mapping[str, str], name: str) -> str:
    """Returns the URL of a server; raises ValueError where it is none that Pods can reach with TLS."""
    value = required(environment, name)
    try:
        parts = urlsplit(value)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets with no address in them
        good = False
    if not good:
        raise ValueError(f"{name} is {value!r}; it has to be such as https://halvard.halvard-system.svc:8443")
    return value


def port(environment: Mapping[str, str], name: str, default: int) -> int:
    """Returns a TCP port; raises ValueError where it is none."""
    value = environment.get(name) or str(default)
    if not value.isdecimal() or int(value) >= 2**16:
        raise ValueError(f"{name} is {value!r}; it has to be a port from 0 to 65535")
    return int(value)


def address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Returns which Service is to lead here, and to which IP; raises ValueError where only one of them is told."""
    service, pod_ip = environment.get("HALVARD_SERVICE", ""), environment.get("HALVARD_POD_IP", "")
    if bool(service) != bool(pod_ip):
        given, missing = ("HALVARD_SERVICE", "HALVARD_POD_IP")[:: 1 if service else -1]
        raise ValueError(f"{missing} is not set: {given} is, and the leader writes both into an EndpointSlice")
    if pod_ip:
        try:
            ip_address(pod_ip)
        except ValueError as error:
            raise ValueError(f"HALVARD_POD_IP is {pod_ip!r}; it has to be an IP address") from error
    return service, pod_ip


def allow_open_files() -> None:
    """Raises the limit of this process on open files, as far as it may."""
    _, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (OPEN_FILES if hard == RLIM_INFINITY else min(OPEN_FILES, hard), hard))


def own_namespace() -> str:
    """Returns the namespace this process runs in, `default` outside a cluster."""
    return SERVICE_ACCOUNT.read_text().strip() if SERVICE_ACCOUNT.exists() else "default"

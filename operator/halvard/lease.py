"""Who leads: one Lease of the coordination API, so that two operators never decide at the same time."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from halvard.kube import LEASES, Conflict, Kube, KubeError, Manifest, NotFound

log = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818  # what happened, in the words of the coordination API
    """Somebody else may lead by now: nothing may be written any more."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: how long a silent leader is believed, how long one may fail to renew, and how often either is tried."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class Lease:
    """One candidate's view of a Lease.

    Clocks of machines are never compared: another's lease has run out when *this* process has seen no renewal for as
    long as it lasts, by its own clock. Every write names the version it rests on, so of two candidates one fails.
    """

    def __init__(self, kube: Kube, namespace: str, name: str, identity: str, timing: Timing = Timing()) -> None:
        """`identity` names this process and no other one that may live at the same time.

        A container that is started again in its Pod may have the Pod's name: the kubelet starts it when the one before
        has ended, so it finds its own lease and goes on at once.
        """
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing
        self._seen = ""
        self._seen_at = 0.0
        self._written_at = 0.0
        self.held = False
        self.stands_by = False  # another one leads, and the API server said so when it was last asked

    def may_write(self) -> bool:
        """Whether nobody else can lead yet: a process that was paused may not have noticed that its time is over."""
        return self.held and asyncio.get_running_loop().time() < self._written_at + self._timing.duration

    async def acquire(self) -> None:
        """Waits until this process leads."""
        while not await self._attempt():  # noqa: ASYNC110  # what is waited for happens in the API server
            await asyncio.sleep(self._timing.retry)
        log.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renews for ever; raises LeaseLost when somebody else leads or no renewal succeeded in time."""
        clock = asyncio.get_running_loop().time
        while True:
            limit, due = self._written_at + self._timing.deadline, clock() + self._timing.retry
            await asyncio.sleep(self._timing.retry)
            begun = clock()
            if due < limit <= begun:  # it was this process that had no time to ask; nobody else may lead so early
                limit = self._written_at + self._timing.duration
            try:
                async with asyncio.timeout_at(limit):
                    leads = await self._attempt()
            except TimeoutError:
                leads = False
            if not leads and (not self.held or clock() - self._written_at >= self._timing.deadline):
                self.held = False
                raise LeaseLost(f"{self._namespace}/{self._name} could not be renewed by {self._identity}")

    async def release(self) -> None:
        """Lets the next candidate lead at once; where that fails, it leads when the lease has run out."""
        if not self.held:
            return
        self.held = False
        try:
            lease = await self._kube.get(LEASES, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "renewTime": now(), "leaseDurationSeconds": 1}
                await self._kube.replace(LEASES, self._namespace, self._name, lease)
        except KubeError as error:
            log.warning("the lease was not released: %s", error)

    async def _attempt(self) -> bool:
        """Takes or renews the lease if it may be had; a server that does not answer leaves things as they are."""
        try:
            lease = await self._kube.get(LEASES, self._namespace, self._name)
        except NotFound:
            return await self._write(None)
        except KubeError as error:
            log.warning("the lease cannot be read: %s", error)
            self.stands_by = False
            return False
        self.stands_by = not self._free(lease)
        if self.stands_by:
            self.held = False
            return False
        return await self._write(lease)

    def _free(self, lease: Manifest) -> bool:
        """Whether it is ours, nobody's, or not renewed for as long as it lasts."""
        clock = asyncio.get_running_loop().time()
        if lease["metadata"]["resourceVersion"] != self._seen:
            self._seen, self._seen_at = lease["metadata"]["resourceVersion"], clock
        holder = lease["spec"].get("holderIdentity") or ""
        duration = lease["spec"].get("leaseDurationSeconds") or self._timing.duration
        return holder in {"", self._identity} or clock >= self._seen_at + duration

    async def _write(self, lease: Manifest | None) -> bool:
        begun = asyncio.get_running_loop().time()
        try:
            if lease is None:
                await self._kube.create(LEASES, self._namespace, self._manifest())
            else:
                lease["spec"] = self._spec(lease["spec"])
                await self._kube.replace(LEASES, self._namespace, self._name, lease)
        except Conflict:
            return False  # somebody wrote in between; the next attempt sees who
        except KubeError as error:
            log.warning("the lease cannot be written: %s", error)
            return False
        self.held, self._written_at = True, begun
        return True

    def _manifest(self) -> Manifest:
        return {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": self._spec({}),
        }

    def _spec(self, before: Manifest) -> Manifest:
        renewing = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._timing.duration),
            "acquireTime": before["acquireTime"] if renewing else now(),
            "renewTime": now(),
            "leaseTransitions": before.get("leaseTransitions", 0) + (not renewing and bool(before)),
        }


def now() -> str:
    """The time as a MicroTime; only people read it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

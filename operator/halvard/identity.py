"""Whose report it is: the Pod's own token says so, and the API server vouches for it; the request never does."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from halvard.kube import KubeError

Review = Callable[[str, Sequence[str]], Awaitable[Mapping[str, Any]]]
"""Asks the API server about a token for some audiences; returns the `status` of the TokenReview."""

BELIEVED_SECONDS = 60.0
REFUSED_SECONDS = 5.0
CACHE_SIZE = 16_384
REVIEWS_AT_ONCE = 32  # strangers must not make us flood the API server
REVIEWS_WAITING = 4096
_POD = "authentication.kubernetes.io/pod-"
_ACCOUNT = "system:serviceaccount:"
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class Unavailable(Exception):  # noqa: N818  # as in `halvard.kube`
    """There is no answer now; the same question may have one later."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The Pod a token was made for."""

    namespace: str
    name: str
    uid: str


class Identity:
    """Turns bearer tokens into Pods, asking at most once a minute for each token.

    A token may outlive its Pod by that minute (and by 10 s in the API server's own cache): whether the Pod still counts
    is for the reader of its uid to know.
    """

    def __init__(self, review: Review, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`audience` is the only one accepted; `clock` gives seconds."""
        self._review = review
        self._audience = audience
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, PodIdentity | None]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[PodIdentity | None]] = {}
        self._turns = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def __call__(self, token: str) -> PodIdentity | None:
        """Returns the Pod this token belongs to, or None if it is not to be believed; raises Unavailable."""
        if not _JWT.fullmatch(token):
            return None  # every service account's token is a JWT: the API server need not be asked
        digest = hashlib.sha256(token.encode()).digest()  # tokens themselves are not kept
        until, pod = self._known.get(digest, (0.0, None))
        if self._clock() < until:
            return pod
        task = self._asked.get(digest)
        if task is None:
            if len(self._asked) >= REVIEWS_WAITING:
                raise Unavailable("too many unknown tokens at once")
            task = asyncio.create_task(self._ask(digest, token))
            self._asked[digest] = task
            task.add_done_callback(lambda done: self._answered(digest, done))
        return await asyncio.shield(task)  # one caller going away must not take the others' answer with it

    async def _ask(self, digest: bytes, token: str) -> PodIdentity | None:
        try:
            async with self._turns:
                status = await self._review(token, [self._audience])
        except KubeError as error:
            raise Unavailable(f"the API server could not say whose token this is: {error}") from error
        pod = pod_of(status, self._audience)
        self._known[digest] = (self._clock() + (BELIEVED_SECONDS if pod else REFUSED_SECONDS), pod)
        self._known.move_to_end(digest)
        if len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return pod

    def _answered(self, digest: bytes, task: asyncio.Task[PodIdentity | None]) -> None:
        del self._asked[digest]
        if not task.cancelled():
            task.exception()  # looked at: where every caller has gone away, nobody else does


def pod_of(status: Mapping[str, Any], audience: str) -> PodIdentity | None:
    """Returns the Pod that a TokenReview's status vouches for; None where any part of the proof is missing."""
    if status.get("authenticated") is not True or audience not in (status.get("audiences") or ()):
        return None
    user = status.get("user") or {}
    username, extra = user.get("username") or "", user.get("extra") or {}
    name, uid = (extra.get(f"{_POD}{field}") or [""] for field in ("name", "uid"))
    if not username.startswith(_ACCOUNT) or not name[0] or not uid[0]:
        return None  # a token that is not bound to a Pod
    return PodIdentity(username.removeprefix(_ACCOUNT).split(":")[0], name[0], uid[0])

"""Where sidecars push reports: `POST /v1/reports` over TLS, as docs/architecture.md defines it; no Kubernetes here."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiohttp import web

from halvard.identity import PodIdentity, Unavailable
from halvard.tls import Tls
from halvard_trainer.reports import Report, from_wire

MAX_BODY = 64 * 1024
MAX_REPORTS = 1000
LONGEST_ELAPSED = 1e9
BODY_SECONDS = 10.0
IDLE_SECONDS = 30.0
PUSHES_A_SECOND = 10.0
PUSHES_AT_ONCE = 20
PODS_REMEMBERED = 16_384
RETRY_SECONDS = 1

Result = Literal["accepted", "invalid", "unauthorized", "too_large", "rate_limited", "superseded", "unavailable"]
"""What came of one push; a closed set, so it can be a label."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Train until `budget`, or `stop` for the reason given; neither: the decision is pending.

    `superseded`: the reports were not believed, the Pod's attempt is no longer the current one.
    """

    budget: int | None = None
    stop: str | None = None
    superseded: bool = False


class UnknownPod(Exception):  # noqa: N818  # says what is the case, like `Unavailable`
    """The token is genuine, but its Pod runs no trial that is known here."""


class Reports(Protocol):
    """Takes what Pods report."""

    async def push(self, pod: PodIdentity, reports: Sequence[Report], elapsed: float) -> Answer:
        """Returns once results among the reports are stored, and the decision on them too, or after 10 s as pending.

        `elapsed`: seconds that the attempt has been running. Raises UnknownPod, or Unavailable where it cannot say now.
        """


class Refusal(Exception):  # noqa: N818  # an answer, not an error of ours
    """A push that is not taken: the HTTP status, how it is counted, and why."""

    def __init__(self, status: int, result: Result, message: str) -> None:
        """`message` is for the person who reads the sidecar's log."""
        super().__init__(message)
        self.status = status
        self.result = result


class RateLimit:
    """A token bucket for each Pod: `PUSHES_AT_ONCE`, refilled at `PUSHES_A_SECOND`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, pod_uid: str) -> bool:
        """Takes one push out of the Pod's bucket, if there is one."""
        now = self._clock()
        level, at = self._buckets.pop(pod_uid, (float(PUSHES_AT_ONCE), now))
        level = min(PUSHES_AT_ONCE, level + (now - at) * PUSHES_A_SECOND)
        allowed = level >= 1
        self._buckets[pod_uid] = (level - allowed, now)
        if len(self._buckets) > PODS_REMEMBERED:
            self._buckets.popitem(last=False)
        return allowed


@dataclass(frozen=True, slots=True)
class Push:
    """What a push says. `elapsed`: seconds its attempt has run; `invalid`: lines that were no reports, so far."""

    reports: Sequence[Report]
    elapsed: float
    invalid: int


class Endpoint:
    """Answers pushes: whose is it, not too often, is it well-formed, and only then what to make of it."""

    def __init__(
        self,
        identify: Callable[[str], Awaitable[PodIdentity | None]],
        reports: Reports,
        count: Callable[[Result], None],
        count_invalid: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identify` turns a bearer token into a Pod; `clock` gives seconds.

        `count` hears what came of each push, `count_invalid` of lines in Pods that were no reports.
        """
        self._identify = identify
        self._reports = reports
        self._count = count
        self._count_invalid = count_invalid
        self._invalid: OrderedDict[str, int] = OrderedDict()
        self._rate = RateLimit(clock)

    def application(self) -> web.Application:
        """Returns the application to serve."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_post("/v1/reports", self._respond)
        return application

    async def _respond(self, request: web.Request) -> web.Response:
        try:
            answer = await self._answer(request)
        except Refusal as refusal:
            self._count(refusal.result)
            headers = {"Retry-After": str(RETRY_SECONDS)} if refusal.status in {429, 503} else None
            return web.json_response({"error": str(refusal)}, status=refusal.status, headers=headers)
        self._count("superseded" if answer.superseded else "accepted")
        if answer.stop is not None:
            return web.json_response({"stop": answer.stop})
        if answer.budget is not None:
            return web.json_response({"budget": answer.budget})
        return web.json_response({}, status=202)

    async def _answer(self, request: web.Request) -> Answer:
        try:
            pod = await self._identify(_token(request))
            if pod is None:
                raise Refusal(
                    401, "unauthorized", "this token is not believed: expired, of a deleted Pod, or not for Halvard"
                )
            if not self._rate.allows(pod.uid):
                raise Refusal(429, "rate_limited", f"more than {PUSHES_A_SECOND:g} pushes a second from one Pod")
            push = parse_push(await _body(request))
            self._hear_of_invalid_lines(pod.uid, push.invalid)
            return await self._reports.push(pod, push.reports, push.elapsed)
        except UnknownPod as error:
            raise Refusal(403, "unauthorized", str(error) or "no trial runs in this Pod") from error
        except Unavailable as error:
            raise Refusal(503, "unavailable", str(error)) from error

    def _hear_of_invalid_lines(self, pod_uid: str, so_far: int) -> None:
        """Counts those that are new: a push that is repeated says the same number again."""
        before = self._invalid.pop(pod_uid, 0)
        self._invalid[pod_uid] = so_far
        if len(self._invalid) > PODS_REMEMBERED:
            self._invalid.popitem(last=False)
        self._count_invalid(max(0, so_far - before))


async def serve(application: web.Application, host: str, port: int, tls: Tls) -> web.AppRunner:
    """Starts listening and returns the runner: `addresses` says where, `cleanup()` ends it."""
    runner = web.AppRunner(
        application,
        access_log=None,
        auto_decompress=False,  # nobody sends compressed reports, and a small body stays small
        keepalive_timeout=IDLE_SECONDS,  # also ends a connection that dribbles its headers
        lingering_time=5.0,
        shutdown_timeout=2.0,
    )
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls.server_context()).start()
    return runner


def parse_push(body: bytes) -> Push:
    """Returns what the body of a push says; raises Refusal naming what is wrong."""
    try:
        push: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the body is not JSON: {error}") from error
    if not isinstance(push, dict) or not isinstance(push.get("reports"), list):
        raise _invalid('the body has to be {"reports": [...], "elapsed": 12.5}')
    items, elapsed, invalid = push["reports"], push.get("elapsed"), push.get("invalid", 0)
    if len(items) > MAX_REPORTS:
        raise _invalid(f"reports: {len(items)} of them; at most {MAX_REPORTS} a push")
    if isinstance(elapsed, bool) or not isinstance(elapsed, int | float) or not 0 <= elapsed < LONGEST_ELAPSED:
        raise _invalid(f"elapsed: {elapsed!r}; has to be a number of seconds from 0")
    if type(invalid) is not int or invalid < 0:
        raise _invalid(f"invalid: {invalid!r}; has to be a number of lines from 0")
    return Push([_report(index, item) for index, item in enumerate(items)], elapsed, invalid)


def _report(index: int, item: object) -> Report:
    try:
        return from_wire(item)
    except ValueError as error:
        raise _invalid(f"reports[{index}]: {error}") from error


def _invalid(message: str) -> Refusal:
    return Refusal(400, "invalid", message[:500])


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        raise Refusal(401, "unauthorized", "no bearer token")
    return token


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Refusal(413, "too_large", f"more than {MAX_BODY} bytes") from error
    except TimeoutError as error:
        raise Refusal(503, "invalid", f"the body took longer than {BODY_SECONDS:g} s") from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise _invalid("the body broke off") from error

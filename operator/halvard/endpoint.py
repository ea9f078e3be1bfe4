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
from halvard.listener import CutOff, believe
from halvard.rate import REMEMBERED, RateLimit
from halvard_trainer.reports import Report, from_wire

MAX_BODY = 64 * 1024
MAX_REPORTS = 1000
LONGEST_ELAPSED = 1e9
MOST_LINES = 1_000_000_000
BODY_SECONDS = 10.0
PUSHES_A_SECOND = 10.0
PUSHES_AT_ONCE = 20
RETRY_SECONDS = 1

Result = Literal[
    "accepted", "invalid", "unauthorized", "too_large", "rate_limited", "superseded", "unavailable", CutOff
]
"""What came of one push, or of a connection that never came to one; a closed set, so it can be a label."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Train until `budget`, or `stop` for the reason given; neither: the decision is pending.

    `stored`: the step of the Pod's last checkpoint that is stored to be gone on from, 0 where there is none yet.
    `superseded`: the reports were not believed, the Pod's attempt is no longer the current one.
    """

    budget: int | None = None
    stop: str | None = None
    stored: int = 0
    superseded: bool = False


class UnknownPod(Exception):  # noqa: N818  # says what is the case, like `Unavailable`
    """The token is genuine, but its Pod runs no trial that is known here."""


class Reports(Protocol):
    """Takes what Pods report."""

    async def push(self, pod: PodIdentity, reports: Sequence[Report], elapsed: float) -> Answer:
        """Returns once results among the reports are stored, and the decision on them too, or after 10 s as pending.

        `elapsed`: seconds that the attempt has been running. Raises UnknownPod, or Unavailable where it cannot say now.
        """


class Counters(Protocol):
    """Counts what arrives."""

    def pushed(self, result: Result) -> None:
        """What came of a push."""

    def invalid(self, lines: int) -> None:
        """Lines in a Pod that were no reports."""

    def superseded(self, reports: Sequence[Report]) -> None:
        """Reports that are not believed because their attempt is over."""


class Refusal(Exception):  # noqa: N818  # an answer, not an error of ours
    """A push that is not taken: the HTTP status, how it is counted, and why."""

    def __init__(self, status: int, result: Result, message: str) -> None:
        """`message` is for the person who reads the sidecar's log."""
        super().__init__(message)
        self.status = status
        self.result = result


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
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identify` turns a bearer token into a Pod; `clock` gives seconds."""
        self._identify = identify
        self._reports = reports
        self._counters = counters
        self._invalid: OrderedDict[str, int] = OrderedDict()
        self._rate = RateLimit(PUSHES_A_SECOND, PUSHES_AT_ONCE, clock)

    def application(self) -> web.Application:
        """Returns the application to serve."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._respond)  # whatever is asked for is limited and counted
        return application

    async def _respond(self, request: web.Request) -> web.Response:
        try:
            decided = await self._answer(request)
        except Refusal as refusal:
            self._counters.pushed(refusal.result)
            headers = {"Retry-After": str(RETRY_SECONDS)} if refusal.status in {429, 503} else None
            answer = web.json_response({"error": str(refusal)}, status=refusal.status, headers=headers)
            if refusal.result != "unavailable":  # that is our fault; others pay each attempt with a new handshake
                answer.force_close()
            return answer
        self._counters.pushed("superseded" if decided.superseded else "accepted")
        if decided.stop is not None:
            return web.json_response({"stop": decided.stop})
        if decided.budget is not None:
            stored = {"stored": decided.stored} if decided.stored else {}
            return web.json_response({"budget": decided.budget, **stored})
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
            believe(request)
            if (request.method, request.path) != ("POST", "/v1/reports"):
                raise Refusal(404, "invalid", "only POST /v1/reports is answered here")
            push = parse_push(await _body(request))
            self._hear_of_invalid_lines(pod.uid, push.invalid)
            answer = await self._reports.push(pod, push.reports, push.elapsed)
            if answer.superseded:
                self._counters.superseded(push.reports)
            return answer
        except UnknownPod as error:
            raise Refusal(403, "unauthorized", str(error) or "no trial runs in this Pod") from error
        except Unavailable as error:
            raise Refusal(503, "unavailable", str(error)) from error

    def _hear_of_invalid_lines(self, pod_uid: str, so_far: int) -> None:
        """Counts those that are new: a push that is repeated says the same number again."""
        before = self._invalid.pop(pod_uid, 0)
        self._invalid[pod_uid] = so_far
        if len(self._invalid) > REMEMBERED:
            self._invalid.popitem(last=False)
        self._counters.invalid(max(0, so_far - before))


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
    if type(invalid) is not int or not 0 <= invalid <= MOST_LINES:
        raise _invalid(f"invalid: {invalid!r}; has to be a number of lines from 0 to {MOST_LINES}")
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
    if (request.content_length or 0) > MAX_BODY:
        raise Refusal(413, "too_large", f"{request.content_length} bytes; at most {MAX_BODY} are read")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Refusal(413, "too_large", f"more than {MAX_BODY} bytes; no more are read") from error
    except TimeoutError as error:
        raise Refusal(503, "too_slow", f"the body took longer than {BODY_SECONDS:g} s") from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise _invalid("the body broke off") from error

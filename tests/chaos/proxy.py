"""A proxy between an operator and its API server that troubles what it passes on: seeded, and counted by kind.

Clients speak TLS to it with a certificate of its own and with their own credentials, which it hands through; without
faults they cannot tell it from the API server.
"""

import asyncio
import contextlib
import json
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from halvard.tls import load_or_create
from lab.control_plane import free_port

WRITES = {"POST", "PUT", "PATCH", "DELETE"}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect"}
OLDER = 4  # a stale list is the answer to the one that was asked for so many times ago, or the oldest there is


@dataclass(frozen=True)
class Asked:
    """A request, as far as it matters to what can befall it."""

    write: bool
    list: bool
    continued: bool
    watch: bool


Can = Callable[[Asked], bool]
ANSWERS: dict[str, tuple[Can, int, str]] = {
    "409": (lambda asked: asked.write, 409, "Conflict"),
    "410 on a watch": (lambda asked: asked.watch, 410, "Expired"),
    "410 on a continued list": (lambda asked: asked.continued, 410, "Expired"),
    "429": (lambda _: True, 429, "TooManyRequests"),
    "500": (lambda _: True, 500, "InternalError"),
    "503": (lambda _: True, 503, "ServiceUnavailable"),
}
"""Given instead of doing what was asked."""

BEFORE: dict[str, Can] = {
    "cut before": lambda asked: not asked.watch,  # the connection breaks, and nothing was done
    "silence before": lambda asked: not asked.watch,  # no answer ever comes, and nothing was done
}
AFTER: dict[str, Can] = {
    "cut after": lambda asked: not asked.watch,  # it was done, and the connection breaks before the answer
    "silence after": lambda asked: not asked.watch,  # it was done, and no answer ever comes
    "504 after": lambda asked: asked.write,  # it was done, and the answer is that it took too long
    "stale list": lambda asked: asked.list and not asked.continued,  # an older answer to the same question
    "slow": lambda _: True,
}
EVENTS = (
    "event dropped",
    "event doubled",
    "events swapped",
    "watch cut",  # before an event
    "watch torn",  # in the middle of one
    "watch ended in a line",  # as cleanly as if that were the end
    "410 in a watch",
    "500 in a watch",
)
KINDS = (*ANSWERS, *BEFORE, *AFTER, *EVENTS)


@dataclass(frozen=True)
class Faults:
    """What goes wrong: each kind at a share of its occasions (`rates`), and at the n-th of them for certain (`script`).

    An occasion is a request or an event of a watch that the kind can befall. Whether it does depends on the seed, the
    kind and n alone. `patience`: seconds until the connection of an answer that never comes is cut after all;
    `delay`: how late a slow answer is; `retry_after`: what a 429 asks for.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    script: frozenset[tuple[str, int]] = frozenset()
    seed: int = 0
    patience: float = 1.0
    delay: float = 0.2
    retry_after: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for a kind that there is not."""
        if unknown := {*self.rates, *(kind for kind, _ in self.script)} - {*KINDS}:
            raise ValueError(f"no such faults: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")

    def strikes(self, kind: str, n: int) -> bool:
        """Whether this kind happens at its n-th occasion, counted from 1."""
        rate = self.rates.get(kind, 0.0)
        return (kind, n) in self.script or (rate > 0 and Random(f"{self.seed} {kind} {n}").random() < rate)


class Cut(Exception):  # noqa: N818  # what happens, not a mistake
    """The client's connection is to break now."""


class Proxy:
    """Listens inside an `async with` statement; `kubeconfig` is the given one, but leads here.

    `faults` can be replaced at any time; `counts` says how often each kind has happened.
    """

    def __init__(self, kubeconfig: Path, directory: Path, faults: Faults = Faults()) -> None:
        """`directory` (made where it is not there) takes the certificate and the kubeconfig."""
        directory.mkdir(parents=True, exist_ok=True)
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.kubeconfig = directory / "kubeconfig"
        self._occasions: Counter[str] = Counter()
        self._lists: dict[str, deque[tuple[int, CIMultiDict[str], bytes]]] = {}
        self._watches: set[asyncio.Task[object]] = set()
        self._present = asyncio.Event()
        self._present.set()
        self._silent = False
        tls = load_or_create(directory, ["127.0.0.1"])
        port = free_port()
        config = json.loads(kubeconfig.read_text())
        [cluster] = [item["cluster"] for item in config["clusters"]]
        self._server, self._trust = (
            cluster["server"],
            ssl.create_default_context(cafile=cluster["certificate-authority"]),
        )
        cluster |= {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(directory / "ca.crt")}
        self.kubeconfig.write_text(json.dumps(config))
        self._port, self._context = port, tls.server_context()

    async def __aenter__(self) -> Self:
        """Connects and listens."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._trust)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=["Content-Type"]
        )
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._context).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cuts every connection."""
        self._cut_watches()
        await self._runner.cleanup()
        await self._session.close()

    @contextlib.asynccontextmanager
    async def away(self, *, silent: bool = False) -> AsyncIterator[None]:
        """The API server cannot be reached inside; `silent`: connections stay, but nothing comes over them any more."""
        self.counts["away"] += 1
        self._silent = silent
        self._present.clear()
        if not silent:
            self._cut_watches()
        try:
            yield
        finally:
            self._present.set()
            self._cut_watches()

    def _cut_watches(self) -> None:
        for watch in list(self._watches):
            watch.cancel()

    def _befalls(self, *kinds: str) -> str:
        """Returns which of these kinds happens now, or nothing."""
        for kind in kinds:
            self._occasions[kind] += 1
            if self.faults.strikes(kind, self._occasions[kind]):
                self.counts[kind] += 1
                return kind
        return ""

    # --- requests -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._pass_on(request)
        except (Cut, aiohttp.ClientError):  # ClientError: the API server itself is away
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=502)  # nobody sees it

    async def _pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._present.is_set():
            if self._silent:
                await self._present.wait()
            raise Cut
        asked, body = asked_by(request), await request.read()
        kind = self._befalls(*(kind for kind, (can, *_) in ANSWERS.items() if can(asked)))
        if kind:
            return self._refuse(kind)
        kind = self._befalls(*(kind for kind, can in {**BEFORE, **AFTER}.items() if can(asked)))
        if kind in BEFORE:
            await self._break(kind)
        if kind == "slow":
            await asyncio.sleep(self.faults.delay)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method, self._server + request.raw_path, headers=headers, data=body or None
        ) as answer:
            if asked.watch and answer.status == 200:
                return await self._stream(request, answer)
            return await self._answer(request, kind, asked, answer)

    def _refuse(self, kind: str) -> web.Response:
        _, code, reason = ANSWERS[kind]
        headers = {"Retry-After": str(self.faults.retry_after)} if code == 429 else {}
        return web.json_response(status_of(code, reason, kind), status=code, headers=headers)

    async def _break(self, kind: str) -> None:
        if kind.startswith("silence"):
            await asyncio.sleep(self.faults.patience)
        raise Cut

    async def _answer(
        self, request: web.BaseRequest, kind: str, asked: Asked, answer: aiohttp.ClientResponse
    ) -> web.Response:
        headers = CIMultiDict((n, v) for n, v in answer.headers.items() if n.lower() not in HOP_BY_HOP)
        given = answer.status, headers, await answer.read()
        if kind == "504 after":
            return web.json_response(status_of(504, "Timeout", kind), status=504)
        if kind in AFTER and kind not in {"slow", "stale list"}:
            await self._break(kind)
        if asked.list and not asked.continued:
            lists = self._lists.setdefault(request.raw_path, deque(maxlen=OLDER))
            lists.append(given)
            given = lists[0] if kind == "stale list" else given
        status, headers, body = given
        return web.Response(status=status, headers=headers, body=body)

    # --- watches --------------------------------------------------------------------------------------------------

    async def _stream(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Passes on the events of a watch, until either side ends it or a fault does."""
        response = web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        await response.prepare(request)
        events = asyncio.create_task(self._events(answer, response))
        self._watches.add(events)
        try:
            await asyncio.wait([events])
        finally:  # cancelled where the client went away
            events.cancel()
            self._watches.discard(events)
        if events.cancelled():
            raise Cut
        events.result()
        return response

    async def _events(self, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        held = b""  # an event that is to come after the next one
        async for line in lines(answer.content):
            if not self._present.is_set():
                await self._present.wait()
                raise Cut
            whole = b'"type":"BOOKMARK"' in line[:40] or bool(held)
            kind = "" if whole else self._befalls(*EVENTS)
            if kind == "events swapped":
                held = line
                continue
            await response.write(as_sent(kind, line) + held)
            held = b""
            if kind in {"watch cut", "watch torn"}:
                raise Cut
            if kind in {"watch ended in a line", "410 in a watch", "500 in a watch"}:
                return


def as_sent(kind: str, line: bytes) -> bytes:
    """Returns what is sent instead of an event's line."""
    match kind:
        case "event dropped" | "watch cut":
            return b""
        case "event doubled":
            return line + line
        case "watch torn" | "watch ended in a line":
            return line[: len(line) // 2]
        case "410 in a watch":
            return error_event(410, "Expired", kind)
        case "500 in a watch":
            return error_event(500, "InternalError", kind)
        case _:
            return line


def error_event(code: int, reason: str, kind: str) -> bytes:
    """Returns the line that ends a watch which cannot go on."""
    return json.dumps({"type": "ERROR", "object": status_of(code, reason, kind)}).encode() + b"\n"


def asked_by(request: web.BaseRequest) -> Asked:
    """Returns what matters of a request; lists are those that ask for pages, as all of the operator's do."""
    query = request.rel_url.query
    return Asked(
        write=request.method in WRITES,
        list=request.method == "GET" and "limit" in query,
        continued="continue" in query,
        watch=query.get("watch") in {"true", "1"},
    )


async def lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yields whole lines, however long."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


def status_of(code: int, reason: str, kind: str) -> dict[str, object]:
    """Returns what the API server says when it fails."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected: {kind}",
        "reason": reason,
        "code": code,
    }

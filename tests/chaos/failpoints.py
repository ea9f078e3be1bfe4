"""Places where an operator may die: before and after every request it makes and every answer it gives.

They are off unless `arm` is called, which only `chaos.operators` does: production code knows nothing of them. The
environment says where to die, as a regular expression, and at which passing: `CHAOS_FAILPOINT="after create pods"`,
`CHAOS_PASSING=2`; and by which signal: `CHAOS_SIGNAL=SIGSTOP`, if it is only to be paused. Whatever the operator awaits
between two effects lies between two of these places.
"""

import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from halvard.endpoint import Endpoint
from halvard.kube import Kube, Manifest, Resource

FAILPOINT, PASSING, CENSUS, SIGNAL = "CHAOS_FAILPOINT", "CHAOS_PASSING", "CHAOS_CENSUS", "CHAOS_SIGNAL"
EFFECTS = (
    "get leases",
    "create leases",
    "update leases",
    "list studies",
    "list trials",
    "list pods",
    "create trials",
    "patch trials",
    "patch trials/status",
    "patch studies/status",
    "create pods",
    "delete pods",
    "create events",
    "create tokenreviews",
    "answer a push",
    "get services",
    "get endpointslices",
    "create endpointslices",
    "update endpointslices",
)
"""All that operators of a story do."""
AFTER_A_CONFLICT = ("get studies", "get trials", "get pods")
"""What they ask for where somebody else was faster: in no story."""
FAILPOINTS = tuple(f"{when} {effect}" for effect in EFFECTS for when in ("before", "after"))


def arm(environment: Mapping[str, str]) -> None:
    """Makes this process die where its environment says; a `CHAOS_CENSUS` file is told of every place it passes."""
    wanted, census = re.compile(environment.get(FAILPOINT, "")), environment.get(CENSUS)
    left, end = int(environment.get(PASSING, "1")), signal.Signals[environment.get(SIGNAL, "SIGKILL")]
    if not wanted.pattern and not census:
        return

    def passing(name: str) -> None:
        nonlocal left
        if census:
            with Path(census).open("a") as file:
                file.write(f"{name}\n")
        if wanted.fullmatch(name):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), end)

    _watch_requests(passing)
    _watch_answers(passing)


def _watch_requests(passing: Callable[[str], None]) -> None:
    request = Kube._request

    async def watched(kube: Kube, verb: str, resource: Resource, path: str, **more: Any) -> Manifest:
        name = f"{verb} {resource.plural}" + ("/status" if path.endswith("/status") else "")
        passing(f"before {name}")
        answer = await request(kube, verb, resource, path, **more)
        passing(f"after {name}")
        return answer

    setattr(Kube, "_request", watched)  # noqa: B010


def _watch_answers(passing: Callable[[str], None]) -> None:
    respond: Callable[[Endpoint, web.Request], Awaitable[web.Response]] = Endpoint._respond

    async def watched(endpoint: Endpoint, request: web.Request) -> web.Response:
        answer = await respond(endpoint, request)
        passing("before answer a push")
        with contextlib.suppress(ConnectionError):  # as the web server does when it is the one that writes
            await answer.prepare(request)
            await answer.write_eof()
        passing("after answer a push")
        return answer

    setattr(Endpoint, "_respond", watched)  # noqa: B010

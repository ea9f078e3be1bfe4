"""What a test wants otherwise in an operator and no user does: off unless the environment says so."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random

import kopf
from aiohttp import ClientTimeout

from halvard import handlers, kube, operator
from halvard.clock import now
from halvard.lease import Lease, Timing
from halvard.operator import Settings

RELIST = "CHAOS_RELIST"  # seconds between two full lists
PAGE = "CHAOS_PAGE"  # how many objects a page of a list has
LEASE = "CHAOS_LEASE"  # seconds: duration,deadline,retry
TIMEOUT = "CHAOS_TIMEOUT"  # seconds until a request without an answer is given up
CLOCK = "CHAOS_CLOCK"  # a seed: the clock is wrong, and is set to be wrong otherwise
HOUR = 3600.0
SET_WITHIN = 3.0  # seconds


def arm(environment: Mapping[str, str]) -> None:
    """Changes this process as its environment says."""
    if period := environment.get(RELIST):
        settings = replace(Settings.from_environment(environment), relist_period=float(period))
        setattr(Settings, "from_environment", staticmethod(lambda _: settings))  # noqa: B010
    if page := environment.get(PAGE):
        kube.PAGE, settings_of_kopf = int(page), handlers.settings
        handlers.settings = lambda: with_chunks(settings_of_kopf(), int(page))
    if timing := environment.get(LEASE):
        vars(operator)["Lease"] = partial(Lease, timing=Timing(*map(float, timing.split(","))))
    if seconds := environment.get(TIMEOUT):
        kube.TIMEOUT = ClientTimeout(total=float(seconds))
    if seed := environment.get(CLOCK):
        time.time = now._wall = jumping(seed)
        now._now = time.time()  # as if the clock had been wrong already when this process began


def with_chunks(settings: kopf.OperatorSettings, size: int) -> kopf.OperatorSettings:
    settings.watching.chunk_size = size
    return settings


def jumping(seed: str) -> Callable[[], float]:
    """A clock that is an hour off, or not, until it is set forward or back by one."""
    real, random = time.time, Random(seed)
    first, jump = random.choice((-HOUR, 0.0, HOUR)), random.choice((-HOUR, HOUR))
    set_at = time.monotonic() + random.uniform(0.0, SET_WITHIN)
    return lambda: real() + first + (jump if time.monotonic() > set_at else 0.0)

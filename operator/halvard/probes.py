"""What kubelet and Prometheus ask the operator, in plain HTTP: `/metrics`, `/healthz`, `/readyz`."""

import asyncio
from collections.abc import Callable
from typing import Literal

from aiohttp import web

from halvard.metrics import CONTENT_TYPE, Metrics

State = Literal["leading", "standing by", "starting"]
"""Leads, sees everything and listens; could lead at once, but another does; neither, or the API server is away."""


def application(metrics: Metrics, state: Callable[[], State]) -> web.Application:
    """Returns what to serve; `/readyz` is 503 while `starting`, and the state's name in any case."""
    one_at_a_time = asyncio.Lock()  # a scrape of thousands of series is work, and anybody may ask for it

    async def scrape(_: web.Request) -> web.Response:
        async with one_at_a_time:
            return web.Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text=f"{state()}\n", status=503 if state() == "starting" else 200)

    served = web.Application()
    served.add_routes([web.get("/metrics", scrape), web.get("/healthz", healthy), web.get("/readyz", ready)])
    return served

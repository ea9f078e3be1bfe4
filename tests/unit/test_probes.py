from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from halvard.cache import Cache
from halvard.metrics import Metrics
from halvard.probes import State, application

Say = Callable[[State], None]


@pytest.fixture
async def asked() -> AsyncIterator[tuple[TestClient, Say]]:
    now: list[State] = ["starting"]
    async with TestClient(TestServer(application(Metrics(Cache()), lambda: now[-1]))) as client:
        yield client, now.append


async def test_a_scrape_parses(asked: tuple[TestClient, Say]) -> None:
    answer = await asked[0].get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert any(f.name == "halvard_leader" for f in text_string_to_metric_families(await answer.text()))


@pytest.mark.parametrize(("state", "status"), [("starting", 503), ("standing by", 200), ("leading", 200)])
async def test_readiness_tells_who_leads_from_who_could(
    asked: tuple[TestClient, Say], state: State, status: int
) -> None:
    client, say = asked
    say(state)
    answer = await client.get("/readyz")
    assert (answer.status, await answer.text()) == (status, f"{state}\n")


async def test_it_is_alive_while_it_answers(asked: tuple[TestClient, Say]) -> None:
    assert (await asked[0].get("/healthz")).status == 200

"""The proxy that troubles an API server (`chaos.proxy`): what it does to requests and watches, and nothing else."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from chaos.proxy import KINDS, Faults, Proxy
from halvard.kube import EVENTS, OLD_LISTS, TRIALS, Kube, Manifest, Unavailable
from lab.control_plane import ControlPlane, kubectl


@contextlib.asynccontextmanager
async def connected(control_plane: ControlPlane, directory: Path, faults: Faults) -> AsyncIterator[tuple[Proxy, Kube]]:
    async with Proxy(control_plane.kubeconfig, directory, faults) as proxy:
        kube = await Kube.connect(proxy.kubeconfig)
        yield proxy, kube
        await kube.close()


def trial(index: int) -> Manifest:
    return {
        "apiVersion": TRIALS.api_version,
        "kind": "Trial",
        "metadata": {"name": f"search-{index:04d}"},
        "spec": {"index": index, "budget": 1, "parameters": {}},
    }


async def names(kube: Kube, namespace: str) -> list[str]:
    return [item["metadata"]["name"] async for page in kube.pages(TRIALS, namespace) for item in page.items]


async def test_without_faults_kubectl_works_through_it(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    async with Proxy(control_plane.kubeconfig, tmp_path) as proxy:
        create = ("create", "-n", namespace, "-f", "-")
        await asyncio.to_thread(kubectl, proxy.kubeconfig, *create, input=json.dumps(trial(0)))
        done = await asyncio.to_thread(
            kubectl, proxy.kubeconfig, "get", "trials", "-n", namespace, "-o", "name", "--watch", "--request-timeout=1s"
        )
    assert done.stdout.split() == ["trial.halvard.dev/search-0000"]
    assert proxy.counts.total() == 0


async def test_it_hands_credentials_through(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    async with Proxy(control_plane.kubeconfig, tmp_path) as proxy:
        config = json.loads(proxy.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": "a stranger's"}
        proxy.kubeconfig.write_text(json.dumps(config))
        refused = await asyncio.to_thread(kubectl, proxy.kubeconfig, "get", "pods", "-n", namespace, check=False)
    assert "You must be logged in" in refused.stderr


@pytest.mark.parametrize(
    ("kind", "left", "code"),
    [
        ("409", 0, 409),
        ("429", 0, 429),
        ("500", 0, 500),
        ("503", 0, 503),
        ("cut before", 0, 0),
        ("silence before", 0, 0),
        ("cut after", 1, 0),
        ("silence after", 1, 0),
        ("504 after", 1, 504),
    ],
)
async def test_a_write_fails_before_or_after_it_was_done(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, *, kind: str, left: int, code: int
) -> None:
    faults = Faults(script=frozenset({(kind, 1)}), patience=0.01)
    async with connected(control_plane, tmp_path, faults) as (proxy, kube):
        with pytest.raises(Unavailable) as refused:
            await kube.create(TRIALS, namespace, trial(0))
        assert await names(kube, namespace) == ["search-0000"] * left
    assert refused.value.code == code
    assert refused.value.retry_after == (faults.retry_after if kind == "429" else 0)
    assert proxy.counts == {kind: 1}


@pytest.mark.parametrize(("asked", "waited"), [(7, 7.0), (86_400, 60.0)])
async def test_a_server_is_waited_for_as_long_as_it_asks_for_but_no_longer_than_a_minute(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, *, asked: int, waited: float
) -> None:
    faults = Faults(script=frozenset({("429", 1)}), retry_after=asked)
    async with connected(control_plane, tmp_path, faults) as (_, kube):
        with pytest.raises(Unavailable) as refused:
            await kube.create(TRIALS, namespace, trial(0))
    assert refused.value.retry_after == waited


async def test_a_list_is_stale_or_expires(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    faults = Faults(script=frozenset({("stale list", 2), ("410 on a continued list", 1)}))
    async with connected(control_plane, tmp_path, faults) as (proxy, kube):
        assert await names(kube, namespace) == []
        for index in range(2):
            await kube.create(TRIALS, namespace, trial(index))
        path = TRIALS.path(namespace)
        old = await kube._request("list", TRIALS, path, query={"limit": "500"})
        assert old["items"] == []
        assert await names(kube, namespace) == ["search-0000", "search-0001"]
        first = await kube._request("list", TRIALS, path, query={"limit": "1"})
        with pytest.raises(Unavailable) as expired:
            await kube._request("list", TRIALS, path, query={"limit": "1", "continue": first["metadata"]["continue"]})
    assert expired.value.code == 410
    assert proxy.counts == {"stale list": 1, "410 on a continued list": 1}


async def test_a_list_that_is_older_than_what_is_known_is_asked_for_again(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    faults = Faults(script=frozenset({("stale list", 2)}))
    async with connected(control_plane, tmp_path, faults) as (proxy, kube):
        assert await names(kube, namespace) == []
        await kube.create(TRIALS, namespace, trial(0))
        assert await names(kube, namespace) == ["search-0000"]
    assert proxy.counts == {"stale list": 1}


async def test_lists_that_stay_older_are_believed_as_versions_may_be_of_two_stores(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halvard.kube.PAGE_PAUSE", 0.0)
    async with connected(control_plane, tmp_path, Faults()) as (_, kube):
        await kube.create(TRIALS, namespace, trial(0))
        kube._newest *= 1000
        asked = list[str]()
        kube._observe = lambda verb, *_: asked.append(verb)
        for _ in range(2):
            assert await names(kube, namespace) == ["search-0000"]
    assert len(asked) == OLD_LISTS + 2


async def test_versions_of_events_are_not_compared_as_many_clusters_keep_them_elsewhere(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    event = {
        "apiVersion": EVENTS.api_version,
        "kind": "Event",
        "metadata": {"name": "search.1", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "Started",
        "action": "Start",
        "reportingController": "halvard.dev/operator",
        "reportingInstance": "one",
        "regarding": {"kind": "Study", "namespace": namespace, "name": "search"},
    }
    async with connected(control_plane, tmp_path, Faults()) as (_, kube):
        await kube.create(TRIALS, namespace, trial(0))
        known = kube._newest
        created = await kube.create(EVENTS, namespace, event)
        assert int(created["metadata"]["resourceVersion"]) > known == kube._newest


async def test_a_page_that_the_server_cannot_give_now_is_asked_for_again_and_not_the_whole_list(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halvard.kube.PAGE", 1)
    async with connected(control_plane, tmp_path, Faults()) as (proxy, kube):
        for index in range(3):
            await kube.create(TRIALS, namespace, trial(index))
        proxy.faults = Faults(rates={"503": 0.5}, seed=3)
        assert await names(kube, namespace) == [f"search-{index:04d}" for index in range(3)]
        assert proxy.counts["503"] > 1
        proxy.faults = Faults(rates={"503": 1.0})
        with pytest.raises(Unavailable):
            await names(kube, namespace)


@pytest.mark.parametrize(
    ("kind", "seen", "end"),
    [
        ("", ["0", "1", "2"], None),
        ("event dropped", ["0", "2"], None),
        ("event doubled", ["0", "1", "1", "2"], None),
        ("events swapped", ["0", "2", "1"], None),
        ("watch cut", ["0"], aiohttp.ClientError),
        ("watch torn", ["0"], aiohttp.ClientError),
        ("watch ended in a line", ["0"], json.JSONDecodeError),
        ("410 in a watch", ["0", "410"], EOFError),
        ("500 in a watch", ["0", "500"], EOFError),
    ],
)
async def test_events_of_a_watch_come_wrong(
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    *,
    kind: str,
    seen: list[str],
    end: type[Exception] | None,
) -> None:
    script = frozenset({(kind, 2)} if kind else {})
    async with connected(control_plane, tmp_path, Faults(script=script)) as (proxy, kube):
        watch = watched(kube, namespace)
        first = await kube.create(TRIALS, namespace, trial(0))
        assert await anext(watch) == first["metadata"]["name"][-1]
        for index in range(1, 3):
            await kube.create(TRIALS, namespace, trial(index))
        for expected in seen[1:]:
            assert await anext(watch) == expected
        if end:
            with pytest.raises(end):
                await anext(watch)
        await watch.aclose()
    assert proxy.counts.total() == len(script)


async def watched(kube: Kube, namespace: str) -> AsyncGenerator[str, None]:
    """Yields the last character of each trial that a watch tells of, or the code of its error; raises where it ends."""
    access = await kube.access()
    headers, context = {"Authorization": access.authorization}, ssl.create_default_context(cafile=access.ca)
    url = f"{access.server}{TRIALS.path(namespace)}?watch=true"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url, ssl=context) as answer:
        async for line in answer.content:
            event = json.loads(line)["object"]
            yield event["metadata"]["name"][-1] if event["kind"] == "Trial" else str(event["code"])
    raise EOFError


async def test_while_it_is_away_nothing_is_answered_and_open_watches_break(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    async with connected(control_plane, tmp_path, Faults()) as (proxy, kube):
        await kube.create(TRIALS, namespace, trial(0))
        watch = watched(kube, namespace)
        assert await anext(watch) == "0"
        async with proxy.away():
            with pytest.raises(aiohttp.ClientError):
                await anext(watch)
            with pytest.raises(Unavailable):
                await names(kube, namespace)
        assert await names(kube, namespace) == ["search-0000"]
        watch = watched(kube, namespace)
        assert await anext(watch) == "0"
        async with proxy.away(silent=True):
            asked = asyncio.create_task(names(kube, namespace))
            told = asyncio.ensure_future(anext(watch))
            await kube_behind(control_plane, namespace)
            assert not asked.done()
        assert await asked == ["search-0000", "search-0001"]  # the client asked again, over a new connection
        with pytest.raises(aiohttp.ClientError):
            await told
    assert proxy.counts == {"away": 2}


async def kube_behind(control_plane: ControlPlane, namespace: str) -> None:
    """Changes something without the proxy, and waits until it is done."""
    kube = await Kube.connect(control_plane.kubeconfig)
    await kube.create(TRIALS, namespace, trial(1))
    await kube.close()


def test_what_befalls_depends_on_seed_kind_and_number_alone() -> None:
    faults = Faults(rates={"500": 0.1}, script=frozenset({("429", 3)}), seed=1)
    struck = [n for n in range(1, 2001) if faults.strikes("500", n)]
    assert struck == [n for n in range(1, 2001) if faults.strikes("500", n)]
    assert 150 < len(struck) < 250
    assert struck != [n for n in range(1, 2001) if Faults(rates={"500": 0.1}, seed=2).strikes("500", n)]
    assert [n for n in range(1, 10) if faults.strikes("429", n)] == [3]
    assert not any(faults.strikes(kind, n) for kind in {*KINDS} - {"500", "429"} for n in range(100))


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such faults: 418"):
        Faults(rates={"418": 0.5})

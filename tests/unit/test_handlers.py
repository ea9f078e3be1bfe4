"""What an event of a watch makes of the cache."""

import functools
from typing import Any

import pytest

from halvard import handlers
from halvard.cache import Cache
from halvard.handlers import on_event, still_there
from halvard.kube import KubeError, Manifest, NotFound, Refused, Unavailable
from halvard.queue import Key
from unit.test_cache import STUDY, pod

GONE = NotFound('pods "digits-0003-1" not found', 404)


class Server:
    """An API server with these answers, one after the other."""

    def __init__(self, *answers: Manifest | KubeError) -> None:
        self.answers = list(answers)

    async def get(self, *_: object) -> Manifest:
        answer = self.answers.pop(0)
        if isinstance(answer, KubeError):
            raise answer
        return answer


async def told(cache: Cache, kind: str, manifest: Manifest, *answers: Manifest | KubeError) -> list[Key]:
    """Which studies there is news for when the watch says this; all answers are asked for."""
    news: list[Key] = []
    server: Any = Server(*answers)
    cache.pods.ask = functools.partial(still_there, server)
    await on_event(cache.pods, news.append, lambda: None, {"type": kind, "object": manifest})
    assert server.answers == []
    return news


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.pods.seen(pod(10))
    return cache


async def test_a_pod_that_the_watch_does_not_select_any_more_is_there(cache: Cache) -> None:
    assert await told(cache, "DELETED", pod(11), pod(11, study=None)) == [STUDY]
    assert [item.version for item in cache.pods.of(STUDY)] == [11]


@pytest.mark.parametrize("answer", [GONE, Refused("pods is forbidden", 403), pod(11, uid="its successor")])
async def test_a_pod_that_nobody_finds_is_gone(cache: Cache, answer: Manifest | KubeError) -> None:
    assert await told(cache, "DELETED", pod(11), answer) == [STUDY]
    assert cache.pods.of(STUDY) == []


async def test_whether_it_is_gone_is_asked_until_there_is_an_answer(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "RETRY_SECONDS", 0.0)
    unavailable = Unavailable("etcd has no leader", 503), Unavailable("timed out")
    assert await told(cache, "DELETED", pod(11), *unavailable, GONE) == [STUDY]
    assert cache.pods.of(STUDY) == []


async def test_a_pod_that_was_over_is_not_asked_for(cache: Cache) -> None:
    cache.pods.seen({**pod(11), "status": {"phase": "Succeeded"}})
    assert await told(cache, "DELETED", pod(12)) == [STUDY]
    assert cache.pods.of(STUDY) == []


async def test_a_pod_that_was_not_known_is_not_asked_for() -> None:
    cache = Cache()
    await told(cache, "DELETED", pod(11))
    assert cache.pods.of(STUDY) == []


async def test_what_a_watch_says_else_is_taken_over(cache: Cache) -> None:
    assert await told(cache, "MODIFIED", pod(11, trial=None)) == [STUDY]
    assert [item.version for item in cache.pods.of(STUDY)] == [11]

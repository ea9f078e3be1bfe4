import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from halvard import identity
from halvard.identity import Identity, PodIdentity, Unavailable, pod_of
from halvard.kube import Unavailable as NoAnswer

AUDIENCE = "halvard.dev/reports"
TOKEN = "head.claims.signature"  # noqa: S105  # nobody's
POD = PodIdentity("team-a", "digits-0003-2", "0a1b")


def vouched(**changes: Any) -> dict[str, Any]:
    """The status of a TokenReview of a Pod's token, as the API server gives it."""
    extra = {
        "authentication.kubernetes.io/credential-id": ["JTI=1"],
        "authentication.kubernetes.io/node-name": ["node-1"],
        "authentication.kubernetes.io/pod-name": ["digits-0003-2"],
        "authentication.kubernetes.io/pod-uid": ["0a1b"],
    }
    user = {"username": "system:serviceaccount:team-a:default", "groups": ["system:authenticated"], "extra": extra}
    return {"authenticated": True, "user": user, "audiences": [AUDIENCE], **changes}


class Server:
    """Answers reviews, and remembers them; while `held` is unset it lets them wait."""

    def __init__(self, status: Mapping[str, Any] | Exception) -> None:
        self.status = status
        self.asked: list[tuple[str, Sequence[str]]] = []
        self.held = asyncio.Event()
        self.held.set()

    async def review(self, token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        self.asked.append((token, audiences))
        await self.held.wait()
        if isinstance(self.status, Exception):
            raise self.status
        return self.status


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_token_belongs_to_the_pod_that_the_api_server_names() -> None:
    server = Server(vouched())
    assert await Identity(server.review, AUDIENCE)(TOKEN) == POD
    assert server.asked == [(TOKEN, [AUDIENCE])]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False, "error": "token is expired"},
        vouched(authenticated=False),
        vouched(authenticated="true"),
        vouched(audiences=[]),
        vouched(audiences=None),
        vouched(audiences=["https://kubernetes.default.svc"]),
        vouched(user=None),
        vouched(user={**vouched()["user"], "extra": {}}),
        vouched(user={**vouched()["user"], "extra": {"authentication.kubernetes.io/pod-name": ["digits-0003-2"]}}),
        vouched(user={**vouched()["user"], "username": "alice"}),
    ],
)
def test_a_token_is_not_believed_while_any_part_of_the_proof_is_missing(status: Mapping[str, Any]) -> None:
    assert pod_of(status, AUDIENCE) is None


async def test_a_believed_token_is_reviewed_again_after_a_minute() -> None:
    server, clock = Server(vouched()), Clock()
    identify = Identity(server.review, AUDIENCE, clock)
    await identify(TOKEN)
    clock.now += 59.9
    await identify(TOKEN)
    assert len(server.asked) == 1
    clock.now += 0.2
    await identify(TOKEN)
    assert len(server.asked) == 2


async def test_a_refused_token_is_reviewed_again_soon() -> None:
    server, clock = Server({"authenticated": False}), Clock()
    identify = Identity(server.review, AUDIENCE, clock)
    assert [await identify(TOKEN), await identify(TOKEN)] == [None, None]
    server.status = vouched()
    clock.now += 5.1
    assert await identify(TOKEN) == POD
    assert len(server.asked) == 2


async def test_the_same_token_asked_at_once_is_reviewed_once() -> None:
    server = Server(vouched())
    server.held.clear()
    identify = Identity(server.review, AUDIENCE)
    callers = [asyncio.ensure_future(identify(TOKEN)) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    server.held.set()
    gone, *others = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(gone, asyncio.CancelledError)
    assert others == [POD, POD]
    assert len(server.asked) == 1


async def test_while_the_api_server_is_away_nobody_is_refused_for_good() -> None:
    server = Server(NoAnswer("connection refused"))
    identify = Identity(server.review, AUDIENCE)
    with pytest.raises(Unavailable, match="connection refused"):
        await identify(TOKEN)
    server.status = vouched()
    assert await identify(TOKEN) == POD


async def test_more_strangers_than_can_wait_are_turned_away_without_a_review(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "REVIEWS_WAITING", 2)
    server = Server(vouched())
    server.held.clear()
    identify = Identity(server.review, AUDIENCE)
    waiting = [asyncio.ensure_future(identify(token)) for token in ("a.b.c", "b.c.d")]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many unknown tokens"):
        await identify("c.d.e")
    server.held.set()
    assert await asyncio.gather(*waiting) == [POD, POD]


async def test_the_oldest_token_is_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "CACHE_SIZE", 2)
    server = Server(vouched())
    identify = Identity(server.review, AUDIENCE)
    for letter in "abcba":
        await identify(f"{letter}.claims.signature")
    assert [token[0] for token, _ in server.asked] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    "token", ["", "token", "a.b", "a..c", "a.b.c.d", "a.b.c ", "a.b.\u0441", "a.b.c\n", "Bearer a.b.c"]
)
async def test_what_cannot_be_a_service_accounts_token_costs_no_review(token: str) -> None:
    server = Server(vouched())
    assert await Identity(server.review, AUDIENCE)(token) is None
    assert server.asked == []

"""A real TLS server on a real socket; only who a token belongs to and what becomes of a report are made up here."""

import asyncio
import gzip
import io
import json
import math
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from hypothesis import given
from hypothesis import strategies as st

from counted import Counted
from halvard import endpoint
from halvard.endpoint import Answer, Endpoint, Push, Refusal, UnknownPod, parse_push
from halvard.identity import PodIdentity, Unavailable
from halvard.listener import Listener
from halvard.tls import load_or_create
from halvard_trainer import push
from halvard_trainer.reports import Report

POD = PodIdentity("team-a", "digits-0003-2", "0a1b")
OTHER = PodIdentity("team-a", "digits-0004-1", "2c3d")
REPORT = {"step": 3, "metrics": {"val_loss": 0.25}, "checkpoint": "step-3"}
PUSH = {"reports": [REPORT], "budget": 3, "elapsed": 0.5}


async def identify(bearer: str) -> PodIdentity | None:
    if bearer == "unavailable":
        raise Unavailable("the API server is away")
    return {"pod": POD, "other": OTHER}.get(bearer)


@dataclass
class Taken:
    """Takes every report and gives the answer it was told to give."""

    answer: Answer | Exception = field(default_factory=lambda: Answer(budget=3))
    pushes: list[tuple[PodIdentity, Sequence[Report], float]] = field(default_factory=list)

    async def push(self, pod: PodIdentity, reports: Sequence[Report], elapsed: float) -> Answer:
        self.pushes.append((pod, reports, elapsed))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Served:
    """A running endpoint, and a client of it."""

    taken: Taken
    counted: Counted
    port: int
    context: ssl.SSLContext
    session: ClientSession
    now: list[float]

    async def push(self, body: object = PUSH, bearer: str = "pod", **headers: str) -> tuple[int, dict[str, Any]]:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        authorization = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        url = f"https://127.0.0.1:{self.port}/v1/reports"
        async with self.session.post(url, data=data, headers={**authorization, **headers}) as response:
            return response.status, await response.json()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    taken, counted, now = Taken(), Counted(), [0.0]
    tls = load_or_create(tmp_path, ["127.0.0.1"])
    application = Endpoint(identify, taken, counted, lambda: now[0]).application()
    listener = Listener(application, counted.pushed, tls.server_context())
    await listener.start("127.0.0.1", 0)
    context = ssl.create_default_context(cadata=tls.ca_pem)
    async with ClientSession(connector=TCPConnector(ssl=context)) as session:
        yield Served(taken, counted, listener.port, context, session, now)
    await listener.close()


async def test_a_push_is_taken_for_the_pod_of_its_token(served: Served) -> None:
    assert await served.push() == (200, {"budget": 3})
    assert [(POD, [Report(3, {"val_loss": 0.25}, "step-3")], 0.5)] == served.taken.pushes
    assert served.counted.results == ["accepted"]


async def test_the_sidecars_own_client_is_understood(served: Served, tmp_path: Path) -> None:
    bearer = tmp_path / "token"
    bearer.write_text("pod\n")
    ca = (tmp_path / "ca.crt").read_text()
    sidecar = push.Endpoint(f"https://127.0.0.1:{served.port}", ca, bearer)
    answers = [await asyncio.to_thread(sidecar.post, json.dumps(PUSH).encode()) for _ in range(2)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, {"budget": 3})] * 2
    sidecar._connection.close()


@pytest.mark.parametrize(
    ("answer", "status", "body", "result"),
    [
        (Answer(budget=9), 200, {"budget": 9}, "accepted"),
        (Answer(budget=9, stored=3), 200, {"budget": 9, "stored": 3}, "accepted"),
        (Answer(stop="paused at rung 3"), 200, {"stop": "paused at rung 3"}, "accepted"),
        (Answer(), 202, {}, "accepted"),
        (Answer(stop="attempt 2 runs now", superseded=True), 200, {"stop": "attempt 2 runs now"}, "superseded"),
    ],
)
async def test_the_answer_is_what_was_decided(
    served: Served, answer: Answer, status: int, body: dict[str, Any], result: str
) -> None:
    served.taken.answer = answer
    assert (status, body) == await served.push()
    assert [result] == served.counted.results
    assert served.counted.reports == ([Report(3, {"val_loss": 0.25}, "step-3")] if answer.superseded else [])


@pytest.mark.parametrize(
    ("error", "status", "result"),
    [(UnknownPod(), 403, "unauthorized"), (Unavailable("not the leader yet"), 503, "unavailable")],
)
async def test_who_cannot_be_answered_is_told_why(served: Served, error: Exception, status: int, result: str) -> None:
    served.taken.answer = error
    code, body = await served.push()
    assert (status, str(error) or "no trial runs in this Pod") == (code, body["error"])
    assert [result] == served.counted.results


@pytest.mark.parametrize("bearer", ["", "stranger", "x" * 4000])
async def test_a_token_that_is_not_believed_writes_nothing(served: Served, bearer: str) -> None:
    status, body = await served.push(bearer=bearer)
    assert (status, "token" in body["error"]) == (401, True)
    assert (served.taken.pushes, served.counted.results) == ([], ["unauthorized"])


async def test_a_password_is_not_a_token(served: Served) -> None:
    status, _ = await served.push(bearer="", Authorization="Basic cG9kOnBvZA==")
    assert status == 401


async def test_while_nobody_can_say_whose_token_it_is_the_sidecar_is_to_try_again(served: Served) -> None:
    status, body = await served.push(bearer="unavailable")
    assert (status, body) == (503, {"error": "the API server is away"})
    assert served.counted.results == ["unavailable"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"\x1f\x8b\x08\x00", "not JSON"),
        ([], 'the body has to be {"reports": [...], "elapsed": 12.5}'),
        ({"reports": {}, "elapsed": 3}, 'the body has to be {"reports": [...], "elapsed": 12.5}'),
        ({"reports": []}, "elapsed: None; has to be a number of seconds from 0"),
        ({"reports": [], "elapsed": True}, "elapsed: True; has to be a number of seconds from 0"),
        ({"reports": [], "elapsed": -1}, "elapsed: -1; has to be a number of seconds from 0"),
        ({"reports": [], "elapsed": 1, "invalid": "many"}, "invalid: 'many'; has to be a number of lines from 0"),
        ({"reports": [], "elapsed": 1, "invalid": 10**400}, "invalid: 1000000000"),
        (
            {"reports": [], "elapsed": 1, "invalid": 10**10},
            "10000000000; has to be a number of lines from 0 to 1000000000",
        ),
        ({"reports": [REPORT, 7], "elapsed": 3}, "reports[1]: "),
        ({"reports": [{"step": 1.5, "metrics": {}}], "elapsed": 3}, "reports[0]: step"),
        ({"reports": [{"step": -1, "metrics": {}}], "elapsed": 3}, "reports[0]: step"),
        ({"reports": [{"step": 1, "metrics": {"loss": "high"}}], "elapsed": 3}, "reports[0]: metric"),
        ({"reports": [{"step": 1, "metrics": {}, "checkpoint": "../x"}], "elapsed": 3}, "reports[0]: checkpoint"),
        ({"reports": [{"step": 1}] * 1001, "elapsed": 3}, "reports: 1001 of them; at most 1000 a push"),
    ],
)
async def test_a_body_that_is_no_push_is_refused_with_what_would_be_right(
    served: Served, body: object, words: str
) -> None:
    status, answer = await served.push(body)
    assert (status, words in answer["error"]) == (400, True), answer
    assert (served.taken.pushes, served.counted.results) == ([], ["invalid"])


async def test_numbers_that_json_lacks_arrive(served: Served) -> None:
    metrics = {"a": "NaN", "b": "Infinity", "c": "-Infinity"}
    await served.push({"reports": [{"step": 1, "metrics": metrics}], "elapsed": 3})
    ((_, (report,), _),) = served.taken.pushes
    assert math.isnan(report.metrics["a"])
    assert (math.inf, -math.inf) == (report.metrics["b"], report.metrics["c"])


async def test_lines_that_were_no_reports_are_counted_once_however_often_they_are_told_of(served: Served) -> None:
    for bearer, so_far in (("pod", 2), ("pod", 2), ("other", 1), ("pod", 5), ("pod", 0)):
        await served.push({"reports": [], "elapsed": 3, "invalid": so_far}, bearer)
    assert served.counted.lines == [2, 0, 1, 3, 0]


async def test_a_push_without_reports_only_asks(served: Served) -> None:
    assert await served.push({"reports": [], "elapsed": 3}) == (200, {"budget": 3})


@pytest.mark.parametrize("size", [64 * 1024 + 1, 10_000_000])
async def test_a_body_that_is_too_large_is_refused_without_reading_it(served: Served, size: int) -> None:
    assert await served.push(b" " * size) == (413, {"error": f"{size} bytes; at most 65536 are read"})
    assert (served.taken.pushes, served.counted.results) == ([], ["too_large"])


@pytest.mark.parametrize("size", [64 * 1024 + 1, 10_000_000])
async def test_a_body_of_unknown_length_is_read_no_further_than_the_largest_there_may_be(
    served: Served, size: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield b"\n" * min(10_000, size - start)

    url, headers = f"https://127.0.0.1:{served.port}/v1/reports", {"Authorization": "Bearer pod"}
    async with served.session.post(url, data=pieces(), headers=headers) as response:
        assert (response.status, await response.json()) == (413, {"error": "more than 65536 bytes; no more are read"})
    assert (served.taken.pushes, served.counted.results) == ([], ["too_large"])


async def test_a_compressed_body_stays_small_and_is_no_push(served: Served) -> None:
    bomb = gzip.compress(b" " * 30_000_000)
    status, answer = await served.push(bomb, **{"Content-Encoding": "gzip"})
    assert (status, "not JSON" in answer["error"], served.counted.results) == (400, True, ["invalid"])


async def test_a_body_is_not_waited_for_where_the_token_is_not_believed(served: Served) -> None:
    reader, writer = await connect(served)
    writer.write(HEAD.replace(b"Bearer pod", b"Bearer stranger") + b"\r\n{")
    assert (await asyncio.wait_for(reader.readline(), 10))[:12] == b"HTTP/1.1 401"
    writer.close()


@pytest.mark.parametrize(("bearer", "status", "result"), [("pod", 404, "invalid"), ("stranger", 401, "unauthorized")])
@pytest.mark.parametrize("asked", ["GET /v1/reports", "POST /metrics", "OPTIONS /", "PUT /v1/reports/"])
async def test_whatever_else_is_asked_for_is_counted_too(
    served: Served, asked: str, bearer: str, status: int, result: str
) -> None:
    method, path = asked.split()
    url, headers = f"https://127.0.0.1:{served.port}{path}", {"Authorization": f"Bearer {bearer}"}
    async with served.session.request(method, url, headers=headers) as response:
        assert response.status == status
    assert served.counted.results == [result]


@pytest.mark.parametrize(("bearer", "connection"), [("pod", None), ("unavailable", None), ("stranger", "close")])
async def test_who_is_refused_has_to_come_again_with_a_new_connection(
    served: Served, bearer: str, connection: str | None
) -> None:
    url, headers = f"https://127.0.0.1:{served.port}/v1/reports", {"Authorization": f"Bearer {bearer}"}
    async with served.session.post(url, json=PUSH, headers=headers) as response:
        assert response.headers.get("Connection") == connection


async def test_a_body_of_the_largest_size_is_read(served: Served) -> None:
    push = json.dumps(PUSH).encode()
    assert await served.push(push + b" " * (64 * 1024 - len(push))) == (200, {"budget": 3})


async def test_a_pod_that_pushes_too_often_is_slowed_and_its_neighbour_is_not(served: Served) -> None:
    statuses = [(await served.push())[0] for _ in range(22)]
    assert statuses == [200] * 20 + [429] * 2
    assert (await served.push(bearer="other"))[0] == 200
    served.now[0] += 0.1
    assert [(await served.push())[0] for _ in range(2)] == [200, 429]
    assert {name: served.counted.results.count(name) for name in set(served.counted.results)} == {
        "accepted": 22,
        "rate_limited": 3,
    }


async def test_a_refusal_that_will_pass_says_when_to_try_again(served: Served) -> None:
    url = f"https://127.0.0.1:{served.port}/v1/reports"
    async with served.session.post(url, headers={"Authorization": "Bearer unavailable"}) as response:
        assert response.headers["Retry-After"] == "1"


async def test_an_error_of_ours_is_a_500_and_the_next_push_is_answered(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.taken.answer = RuntimeError("a bug")
    url, headers = f"https://127.0.0.1:{served.port}/v1/reports", {"Authorization": "Bearer pod"}
    async with served.session.post(url, json=PUSH, headers=headers) as response:
        assert response.status == 500
    assert "a bug" in caplog.text
    served.taken.answer = Answer(budget=3)
    assert await served.push() == (200, {"budget": 3})


async def connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port, ssl=served.context)


HEAD = b"POST /v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer pod\r\nContent-Length: 100\r\n"


async def test_a_body_that_dribbles_in_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BODY_SECONDS", 0.05)
    reader, writer = await connect(served)
    writer.write(HEAD + b"\r\n{")
    assert (await asyncio.wait_for(reader.readline(), 10))[:12] == b"HTTP/1.1 503"
    assert served.counted.results == ["too_slow"]
    writer.close()


@pytest.mark.parametrize("leave", ["abort", "close"])
async def test_a_sidecar_that_goes_away_in_the_middle_disturbs_nobody(
    served: Served, caplog: pytest.LogCaptureFixture, leave: str
) -> None:
    _, writer = await connect(served)
    writer.write(HEAD + b"\r\n{")
    await writer.drain()
    getattr(writer.transport, leave)()
    await asyncio.wait_for(served.counted.another.wait(), 10)
    assert served.counted.results == ["invalid"]
    assert await served.push() == (200, {"budget": 3})
    assert caplog.text == ""


NAMES = st.sampled_from(["reports", "elapsed", "invalid", "step", "metrics", "checkpoint"]) | st.text(max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=4),
    max_leaves=20,
)
PUSHES = st.fixed_dictionaries({"reports": st.lists(VALUES), "elapsed": st.floats()})


@given(st.binary(max_size=200) | (VALUES | PUSHES).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_push_or_are_refused(body: bytes) -> None:
    try:
        push = parse_push(body)
    except Refusal as refusal:
        push, status = Push([], 0.0, 0), refusal.status
    else:
        status = 200
    assert status in {200, 400}
    assert 0 <= push.elapsed < 1e9
    assert push.invalid >= 0
    assert all(report.step >= 1 for report in push.reports)

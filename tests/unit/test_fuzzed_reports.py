"""Fuzzed pushes to the real endpoint, inbox and token check over TLS: no error of ours, no stall, nothing unbelievable.

`HALVARD_FUZZED` says how many requests, `HALVARD_SEED` which.
"""

import asyncio
import base64
import json
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from counted import Counted
from halvard.cache import Cache
from halvard.decide import decide
from halvard.endpoint import Endpoint
from halvard.events import Ended, Reported, Started
from halvard.faults import VANISHED
from halvard.identity import Identity
from halvard.inbox import Inbox
from halvard.listener import Limits, Listener
from halvard.plan import Verdict
from halvard.progress import Progress
from halvard.queue import Key
from halvard.sessions import Session
from halvard.study import Study
from halvard.tls import load_or_create
from halvard.trial import Trial
from unit.fuzz import Case, Fuzzer
from unit.test_inbox import STUDY, manifest, study, trial

COUNT = int(os.environ.get("HALVARD_FUZZED", "1000"))
SEED = int(os.environ.get("HALVARD_SEED", "0"))
AUDIENCE = "halvard.dev/reports"
MADE = time.time() - 3600  # when the Pods were
ANSWERS = {0, 200, 400, 401, 403, 404, 413, 417}  # 0: it was hung up on, by one or the other
SMUGGLED = {
    f"framing: {kind}"
    for kind in (
        "too short a length",
        "two lengths",
        "length and chunks",
        "chunks twice",
        "chunks, spelled oddly",
        "space before the colon",
        "a request inside",
    )
}


def signed(name: str, audience: str) -> str:
    """A service account's token as it looks; `review` knows each by heart, and so any change of it."""
    head, claims = {"alg": "RS256", "kid": "x" * 43}, {"aud": [audience], "iss": "kubernetes", "sub": "default"}
    parts = [json.dumps(part).encode() for part in (head, {**claims, "kubernetes.io": {"pod": {"name": name}}})]
    signature = random.Random(name + audience).randbytes(256)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature))


TOKENS = {
    "": signed("digits-0003-1", AUDIENCE),
    "an old attempt": signed("digits-0003-0", AUDIENCE),
    "a neighbour without a trial": signed("nobody", AUDIENCE),
    "another audience": signed("digits-0003-1", "vault"),
    "expired": signed("an older one", AUDIENCE),
    "no pod's": signed("", AUDIENCE),
    "garbage": "garbage",
    "long garbage": "a.b." + "c" * 7000,
    "not ASCII": "pod.of-tri\xe4l.1",
    "with a zero": "pod.of\x00.1",
}
NAMES = ("digits-0003-1", "digits-0003-0", "nobody")
PODS = {signed(name, AUDIENCE): name for name in NAMES}


async def review(token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
    """What the API server says about these tokens."""
    if token == TOKENS["another audience"]:
        return {"authenticated": True, "audiences": ["other"], "user": {}}
    if token == TOKENS["no pod's"]:
        user: dict[str, Any] = {"username": "system:serviceaccount:team-a:default"}
        return {"authenticated": True, "audiences": list(audiences), "user": user}
    if token not in PODS:
        return {"authenticated": False, "error": "token has expired"}
    extra = {f"authentication.kubernetes.io/pod-{part}": [PODS[token]] for part in ("name", "uid")}
    user = {"username": "system:serviceaccount:team-a:default", "extra": extra}
    return {"authenticated": True, "audiences": list(audiences), "user": user}


@dataclass
class Served:
    """A running endpoint, and what came of what was sent to it; `said`: the latest answer, `turn`: a study's next."""

    cache: Cache
    inbox: Inbox
    port: int
    context: ssl.SSLContext
    counted: Counted
    turn: Callable[[Key], None]
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    said: Any = None

    def take_real_turns(self) -> None:
        """From now on the study is decided on as in the operator, but that nothing is stored."""
        item = self.cache.studies.get(STUDY)
        assert item is not None
        assert isinstance(item.value, Study)
        session = Session(self.cache, item.value, item.version)

        def turn(study: Key) -> None:
            events = [*self.inbox.take(study).values(), *session.gather(time.time())]
            decide(session.progress, events, time.time())
            self.inbox.settle(study, session.progress.verdict)

        self.turn = turn

    async def send(self, case: Case) -> int:
        """Sends one request; the status of its answer, 0 where there was none."""
        reader, writer = self.connection or await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        self.connection, status, keep = None, 0, False
        try:
            writer.write(case.data)
            await writer.drain()
            if case.whole:
                async with asyncio.timeout(30):
                    status, keep, self.said = await answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it was hung up on
        if keep and case.reusable:
            self.connection = (reader, writer)
        else:
            writer.transport.abort()
        return status


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool, Any]:
    """Reads one answer: its status, whether the connection goes on, and what it says in JSON."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    status = int(head[0].split()[1])
    said = json.loads(body) if "json" in headers.get("content-type", "") else {}
    assert isinstance(said, dict)
    return status, headers.get("connection") != "close" and head[0].startswith("http/1.1"), said


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    cache = Cache()
    cache.studies.seen(study())
    cache.trials.seen(trial())
    for attempt, (name, owner) in enumerate([("digits-0003-0", "trial"), ("digits-0003-1", "trial"), ("nobody", "x")]):
        labels = {"study": "digits", "trial": "digits-0003", "attempt": str(attempt)}
        pod = manifest("Pod", name, name, owner, {}, **labels)
        pod["metadata"]["creationTimestamp"] = datetime.fromtimestamp(MADE, UTC).isoformat()
        cache.pods.seen(pod)

    def go_on(study: Key) -> None:
        """Decides nothing: what was reported is left for the test to look at."""
        inbox.settle(study, lambda _trial, _attempt, step: Verdict(step, budget=3))

    inbox = Inbox(cache, lambda key: asyncio.get_running_loop().call_soon(made.turn, key))
    counted = Counted()
    clock = iter(range(10**9))  # every push comes a second after the one before: nobody is too frequent
    endpoint = Endpoint(Identity(review, AUDIENCE), inbox, counted, lambda: next(clock))
    tls = load_or_create(tmp_path, ["127.0.0.1"])
    limits = Limits(new_at_once=10**9)
    listener = Listener(endpoint.application(), counted.pushed, tls.server_context(), limits)
    await listener.start("127.0.0.1", 0)
    made = Served(cache, inbox, listener.port, ssl.create_default_context(cadata=tls.ca_pem), counted, go_on)
    yield made
    await listener.close()


def stored(event: Reported | Started) -> Trial:
    """What the trial would be if this were the only thing that its attempt ever said, and it was gone then."""
    progress = Progress(Study.from_manifest(study()), [Trial.from_manifest(trial())], {(3, 1): True})
    now = time.time()
    decide(progress, [event], now)
    decide(progress, [Ended(3, 1, now, VANISHED)], now)
    written = json.loads(progress.trials[3].model_dump_json(by_alias=True, exclude_none=True))
    assert len(json.dumps(written)) <= 4096
    return Trial.model_validate(written)


def check_believable(event: Reported | Started) -> None:
    """Its own attempt and trial, a step that counts, numbers that can be stored, no more time than its Pod has been."""
    assert (event.trial, event.attempt) == (3, 1)
    trial = stored(event)
    spent = trial.status.lost.seconds + sum(result.seconds for result in trial.status.rungs)
    assert 0 <= spent <= time.time() - MADE + 1
    if isinstance(event, Reported):
        assert 1 <= event.report.step < 2**53
        assert not {"/", "\x00"} & set(event.report.checkpoint)
        assert event.at <= time.time()


async def test_fuzzed_pushes_are_answered_or_hung_up_on_and_nothing_unbelievable_comes_of_them(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    fuzzer = Fuzzer(SEED, TOKENS)
    for number in range(COUNT):
        case = fuzzer.case()
        status = await served.send(case)
        assert status in ANSWERS, (number, case.kind, status, case.data[:500])
        assert status == 400 or case.kind not in SMUGGLED, (number, case.kind, status)
        told = served.inbox.take(STUDY)
        assert case.proven or (status not in {200, 202} and not told), (number, case.kind, status, case.head)
        for event in told.values():
            check_believable(event)
        if number % 100 == 99:
            assert await served.send(sound(fuzzer)) == 200
            assert served.inbox.take(STUDY)
    assert served.counted.results.count("accepted") > COUNT // 20
    assert {"invalid", "unauthorized", "superseded", "too_large"} <= set(served.counted.results)
    assert not [record for record in caplog.records if record.exc_info]
    served.take_real_turns()
    at_its_budget = {"reports": [{"step": 3, "metrics": {"loss": 0.5}}], "elapsed": 60}
    assert await served.send(fuzzer._request(json.dumps(at_its_budget).encode())) == 200
    assert served.said["stop"].startswith("paused: value 0.5 is place 1 of 1 at rung 3")


def sound(fuzzer: Fuzzer) -> Case:
    """A push with nothing wrong about it."""
    return fuzzer._request(json.dumps(fuzzer.push()).encode())

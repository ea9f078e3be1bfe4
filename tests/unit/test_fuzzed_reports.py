"""Fuzzed pushes to the real endpoint, inbox and token check over TLS: no error of ours, no stall, nothing unbelievable.

`HALVARD_FUZZED` says how many requests, `HALVARD_SEED` which.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
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
TOKENS = {
    "": "pod.of-trial.1",
    "an old attempt": "pod.of-trial.0",
    "a neighbour without a trial": "pod.of-nobody.1",
    "another audience": "other.audience.1",
    "expired": "ex.pi.red",
    "no pod's": "system.account.1",
    "garbage": "garbage",
    "long garbage": "a.b." + "c" * 7000,
    "not ASCII": "pod.of-tri\xe4l.1",
    "with a zero": "pod.of\x00.1",
}
PODS = {"pod.of-trial.1": "digits-0003-1", "pod.of-trial.0": "digits-0003-0", "pod.of-nobody.1": "nobody"}


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
    """A running endpoint, and what came of what was sent to it."""

    inbox: Inbox
    port: int
    context: ssl.SSLContext
    counted: Counted
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, case: Case) -> int:
        """Sends one request; the status of its answer, 0 where there was none."""
        reader, writer = self.connection or await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        self.connection, status, keep = None, 0, False
        try:
            writer.write(case.data)
            await writer.drain()
            if case.whole:
                async with asyncio.timeout(30):
                    status, keep = await answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it was hung up on
        if keep and case.reusable:
            self.connection = (reader, writer)
        else:
            writer.transport.abort()
        return status


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Reads one answer: its status, and whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    status = int(head[0].split()[1])
    assert "json" not in headers.get("content-type", "") or isinstance(json.loads(body), dict)
    return status, headers.get("connection") != "close" and head[0].startswith("http/1.1")


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

    def decide_at_once(key: tuple[str, str]) -> None:
        asyncio.get_running_loop().call_soon(inbox.settle, key, lambda _trial, _attempt, step: Verdict(step, budget=3))

    inbox = Inbox(cache, decide_at_once)
    counted = Counted()
    clock = iter(range(10**9))  # every push comes a second after the one before: nobody is too frequent
    endpoint = Endpoint(Identity(review, AUDIENCE), inbox, counted, lambda: next(clock))
    tls = load_or_create(tmp_path, ["127.0.0.1"])
    limits = Limits(new_at_once=10**9)
    listener = Listener(endpoint.application(), counted.pushed, tls.server_context(), limits)
    await listener.start("127.0.0.1", 0)
    yield Served(inbox, listener.port, ssl.create_default_context(cadata=tls.ca_pem), counted)
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
        for event in served.inbox.take(STUDY):
            check_believable(event)
        if number % 100 == 99:
            assert await served.send(sound(fuzzer)) == 200
    assert served.counted.results.count("accepted") > COUNT // 20
    assert {"invalid", "unauthorized", "superseded", "too_large"} <= set(served.counted.results)
    assert not [record for record in caplog.records if record.exc_info]


def sound(fuzzer: Fuzzer) -> Case:
    """A push with nothing wrong about it."""
    return fuzzer._request(json.dumps(fuzzer.push()).encode())

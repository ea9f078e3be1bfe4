"""Pushes what waits in the outbox until it is acknowledged: one kept-alive connection, back-off, verdicts, spool."""

from __future__ import annotations

import json
import random
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from halvard_trainer import files
from halvard_trainer.outbox import Acknowledged, Outbox, Waiting
from halvard_trainer.reports import compact

TIMEOUT = 15.0  # seconds; the endpoint holds a request that waits for a decision for 10
LONGEST_ANSWER = 64 * 1024  # bytes
COALESCE = 1.0  # seconds between two pushes of mere progress
FIRST_DELAY, LONGEST_DELAY, LONGEST_RETRY_AFTER = 0.2, 10.0, 60.0  # seconds


@dataclass(frozen=True)
class Answer:
    """The endpoint's answer: status 0 where none came; `retry_after` in seconds, 0 where it did not say."""

    status: int
    body: Mapping[str, object] = field(default_factory=dict)
    retry_after: float = 0.0

    def words(self) -> str:
        """Return it for a person, as one line."""
        return f"{self.status or 'no answer'} {dict(self.body)}"[:200]


class Endpoint:
    """The only host the sidecar talks to; it is believed only with a certificate of its own CA and for its own name."""

    def __init__(self, url: str, ca: str, token: Path) -> None:
        """Connect to nothing yet. `ca` is PEM text; ValueError where it or the URL is no good."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"HALVARD_COLLECTOR_URL: must be an https URL, not {url!r}")
        try:
            context = ssl.create_default_context(cadata=ca)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"HALVARD_COLLECTOR_CA: must be certificates in PEM: {error}") from None
        self._path = parts.path.rstrip("/") + "/v1/reports"
        self._token = token
        self._connection = HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT, context=context)

    def post(self, body: bytes) -> Answer:
        """Push once, with the token as it is now."""
        kept_alive = self._connection.sock is not None
        answer = self._try(body)
        if answer.status == 0 and kept_alive:  # most likely the endpoint had only closed the idle connection
            return self._try(body)
        return answer

    def _try(self, body: bytes) -> Answer:
        try:
            return self._post(body)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a token that is no header's value
            self._connection.close()
            return Answer(0, {"error": f"{type(error).__name__}: {error}"})

    def _post(self, body: bytes) -> Answer:
        token = self._token.read_text(encoding="ascii").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        text = response.read(LONGEST_ANSWER)
        if not response.isclosed():  # longer than any answer: the rest must not be read as the next one's beginning
            self._connection.close()
        after = response.headers.get("Retry-After", "")
        return Answer(response.status, _object(text), float(after) if after.isascii() and after.isdigit() else 0.0)


class Pusher:
    """Pushes the outbox, which it shares with another thread: whoever holds `changed` may touch it."""

    def __init__(
        self, endpoint: Endpoint, outbox: Outbox, changed: threading.Condition, *, verdict: Path, spool: Path
    ) -> None:
        """Push nothing yet."""
        self._endpoint = endpoint
        self._outbox = outbox
        self._changed = changed
        self._verdict = verdict
        self._spool = spool
        self._acknowledged = verdict.with_name(files.ACKNOWLEDGED)
        self._stored = 0  # the step of the checkpoint that is
        self._began = time.monotonic()  # about when the trainer did: the sidecar starts just before it
        self._pushed_at = float("-inf")
        self._ending = False
        self._unwritten: set[Path] = set()  # what there was no room for

    def finish(self) -> None:
        """Let `push` return once nothing waits any more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def push(self) -> None:
        """Push until `finish` was called and all is acknowledged; never give up before."""
        failures, said = 0, ""
        while batch := self._next():
            began = time.monotonic()
            answer = self._endpoint.post(self._outbox.body(batch, began - self._began))
            self._pushed_at = time.monotonic()
            was_held = answer.status == HTTPStatus.ACCEPTED and self._pushed_at - began >= COALESCE
            if self._settle(batch, answer) or was_held:
                failures, said = 0, ""
                continue
            if answer.words() != said:
                said = answer.words()
                _say(f"not acknowledged, trying again: {said}")
            self._pause(_delay(failures, answer.retry_after))
            failures += 1

    def _next(self) -> tuple[Waiting, ...]:
        """Wait until a push is due and return its reports, none where it was the last."""
        with self._changed:
            while True:
                due_in = self._pushed_at + COALESCE - time.monotonic()
                if len(self._outbox) and (self._ending or self._outbox.needs_decision or due_in <= 0):
                    return self._outbox.batch()
                if self._ending:
                    return ()
                self._changed.wait(due_in if len(self._outbox) else None)

    def _settle(self, batch: tuple[Waiting, ...], answer: Answer) -> bool:
        """Do what the answer says; return whether the next push may follow at once."""
        if answer.status == HTTPStatus.OK:
            return self._answered(batch, answer.body)
        with self._changed:
            if answer.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
                return False
            refused = self._outbox.refused(batch)
        if refused:
            _say(f"report of step {refused.step} dropped: {answer.words()}")
        return True

    def _answered(self, batch: tuple[Waiting, ...], body: Mapping[str, object]) -> bool:
        try:
            with self._changed:
                verdict = self._outbox.answered(batch, body)
        except ValueError:
            return False
        # Before the spool: a sidecar killed in between pushes again and is told again.
        while verdict and not self._written(self._verdict, compact(verdict)) and not self._ending:
            self._pause(COALESCE)  # nothing that is pushed meanwhile would matter: the trainer waits for this
        self._tell_what_is_stored(body)
        self._written(self._spool, spooled(self._outbox))  # without it, a sidecar that is started again repeats itself
        return True

    def _tell_what_is_stored(self, body: Mapping[str, object]) -> None:
        """Let the trainer know from which checkpoint others go on, so that it removes none but older ones."""
        stored = body.get("stored")
        if not isinstance(stored, int) or stored <= self._stored:
            return
        if self._written(self._acknowledged, compact({"step": stored})):
            self._stored = stored

    def _written(self, path: Path, text: str) -> bool:
        """Replace a file; return whether that went well. The disk may be full, and have room again later."""
        try:
            files.replace(path, text)
        except OSError as error:
            if path not in self._unwritten:
                _say(f"{path.name}: cannot be written: {error}")
            self._unwritten.add(path)
            return False
        self._unwritten.discard(path)
        return True

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the end begins."""
        with self._changed:
            ending = self._ending
            self._changed.wait_for(lambda: self._ending and not ending, seconds)


def spooled(outbox: Outbox) -> str:
    """Return what was acknowledged, for a sidecar that is started again."""
    sources = {name: {"offset": done.offset, "step": done.step} for name, done in outbox.acknowledged.items()}
    return compact({"budget": outbox.budget, "sources": sources})


def read_spool(path: Path) -> tuple[int, dict[str, Acknowledged]]:
    """Return the budget and how far each source was acknowledged; 0 and nothing where there is no sound spool."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        sources = value["sources"].items()
        return int(value["budget"]), {name: Acknowledged(int(at["offset"]), int(at["step"])) for name, at in sources}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, {}


def _delay(failures: int, retry_after: float) -> float:
    jitter = random.uniform(0.5, 1.0)  # noqa: S311  # so that a thousand sidecars do not come back at one moment
    back_off = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 10)) * jitter
    return max(back_off, min(retry_after, LONGEST_RETRY_AFTER))


def _say(text: str) -> None:
    print(f"halvard: {text}", file=sys.stderr, flush=True)


def _object(text: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

"""The history checker after a test on a real API server: what it looks at, and how a test says what it breaks."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from history import Rule, Sent, check, named
from history.audit import PRECISION, Entry, Manifest, entries, histories_of
from history.logged import heard
from lab.audit import Log

UNSOUND = "unsound(*rules, reason): what is done by hand here breaks these rules of the history checker, and why"
PATIENCE = 3.0  # seconds until a write is in the log; answers may be faster


def excused(test: pytest.Item) -> frozenset[Rule]:
    """Returns the rules that a test (or its module) is marked to break.

    Raises TypeError where it does not say why, ValueError where there is no such rule.
    """
    rules = set[str]()
    for mark in test.iter_markers("unsound"):
        if not mark.args or set(mark.kwargs) != {"reason"}:
            raise TypeError(f"{test.nodeid}: write unsound('rule', ..., reason='...')")
        rules.update(mark.args)
    return named(rules)


def assert_all_sound(
    log: Log,
    namespace: str,
    stored: Collection[Manifest],
    excused: Collection[Rule] = (),
    *,
    sent: tuple[Sent, ...] | None = None,
    scraped: str = "",
    said: str | None = None,
    precision: float = PRECISION,
) -> None:
    """Raises AssertionError with every rule, but for those excused, that a Study of a namespace breaks.

    The log is waited for until it has all that is `stored`; but of a request whose client died it may say that it
    failed though it did not. `sent`, `precision`: see `History`; `scraped`: what `/metrics` said; `said`: all that
    operators have logged.
    """
    found = entries(log.lines(), namespace)
    deadline = time.monotonic() + PATIENCE
    while (absent := missing(found, stored, time.time())) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = entries(log.lines(), namespace)
    found = sorted([*found, *absent], key=lambda entry: entry.place)
    results = None if said is None else [result for result in heard(said.splitlines()) if result.namespace == namespace]
    histories = histories_of(found, namespace, results)
    series = [gpu_seconds(scraped, namespace, history.study.name) for history in histories]
    broken = [
        f"{history.study.name}: {violation}"
        for history, own in zip(histories, series, strict=True)
        for violation in check(replace(history, sent=sent, scraped=own, precision=precision))
        if violation.rule not in excused
    ]
    assert not broken, "\n".join(broken)


def gpu_seconds(scraped: str, namespace: str, study: str) -> dict[tuple[int, str], float] | None:
    """Returns `halvard_gpu_seconds` of a Study by rung and outcome; None where the metrics do not know it."""
    samples = [sample for family in text_string_to_metric_families(scraped) for sample in family.samples]
    found = [s for s in samples if s.labels.get("namespace") == namespace and s.labels.get("study") == study]
    own = {(int(s.labels["rung"]), s.labels["outcome"]): s.value for s in found if s.name == "halvard_gpu_seconds"}
    return own if found else None


def missing(found: Sequence[Entry], stored: Iterable[Manifest], now: float) -> list[Entry]:
    """Returns the present state of objects where it is not among what was found, as writes of nobody known.

    Each was made when the next one that was found was, or `now` (seconds since the epoch), at the latest.
    """
    latest = {entry.uid: entry for entry in found}
    known = ((latest[item["metadata"]["uid"]], item) for item in stored if item["metadata"]["uid"] in latest)
    versions = ((entry, int(item["metadata"]["resourceVersion"]), item) for entry, item in known)
    return [
        replace(e, place=place, at=_by(found, place, now), by="", agent="", stored=item)
        for e, place, item in versions
        if e.place < place
    ]


def _by(found: Iterable[Entry], place: int, now: float) -> float:
    return next((entry.at for entry in found if entry.place > place), now)

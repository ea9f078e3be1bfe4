"""The reports that wait to be acknowledged, and what each answer of the endpoint means for them (no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from halvard_trainer.reports import Report, compact, to_wire

LONGEST_BODY = 64 * 1024  # bytes; the endpoint takes no more
LONGEST_ELAPSED = 1e9  # seconds; has to fit into a body beside the reports
MOST_WAITING = 2048  # reports, and bytes of them; beyond either, progress is thinned
MOST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Waiting:
    """A report, as it is pushed, its source, and the offset up to which that is dealt with once it is acknowledged."""

    number: int
    report: Report
    wire: str
    source: str
    end: int


@dataclass(frozen=True)
class Acknowledged:
    """How far a source is dealt with: a byte offset, and the step of the report that ended there."""

    offset: int = 0
    step: int = 0


class Outbox:
    """Reports in the order they came. A *result* needs a decision: it has the objective, at or beyond the budget."""

    def __init__(self, budget: int, objective: str, acknowledged: Mapping[str, Acknowledged]) -> None:
        """Begin with nothing waiting; where `objective` is empty, every report at the budget is a result."""
        self.budget = budget
        self.acknowledged = dict(acknowledged)
        self.invalid = 0  # lines that are no reports, so far
        self._objective = objective
        self._stopped = False
        self._waiting: list[Waiting] = []
        self._added = 0
        self._bytes = 0
        self._last: Report | None = None
        self._most = MOST_WAITING

    def __len__(self) -> int:
        """Return how many reports wait."""
        return len(self._waiting)

    def add(self, report: Report, source: str, end: int) -> None:
        """Append a report."""
        self._added += 1
        self._last = report
        waiting = Waiting(self._added, report, compact(to_wire(report)), source, end)
        self._waiting.append(waiting)
        self._bytes += len(waiting.wire.encode())
        if len(self._waiting) > MOST_WAITING or self._bytes > MOST_BYTES:
            self._thin()

    @property
    def needs_decision(self) -> bool:
        """Whether a result waits: to be pushed at once."""
        return self._first_result() is not None

    def telling(self) -> Report | None:
        """Return the report for the termination message: the first result without a decision, else the last report."""
        first = self._first_result()
        return first.report if first else self._last

    def batch(self) -> tuple[Waiting, ...]:
        """Return what to push next: from the first on, never past a result, so that each result is answered itself."""
        batch: list[Waiting] = []
        size = len(self.body((), LONGEST_ELAPSED))
        for each in self._waiting[: self._most]:
            size += len(each.wire.encode()) + 1
            if batch and size > LONGEST_BODY:
                break
            batch.append(each)
            if self._is_result(each.report):
                break
        return tuple(batch)

    def body(self, batch: tuple[Waiting, ...], elapsed: float) -> bytes:
        """Return the request's body; `elapsed`: seconds that this attempt has been running."""
        reports = ",".join(each.wire for each in batch)
        facts = f'"budget":{self.budget},"elapsed":{elapsed:.3f},"invalid":{self.invalid}'
        return f'{{"reports":[{reports}],{facts}}}'.encode()

    def answered(self, batch: tuple[Waiting, ...], answer: Mapping[str, object]) -> dict[str, object] | None:
        """Take the reports as acknowledged and return the verdict to write, None where nothing changed.

        ValueError where the answer is none: neither `budget` nor `stop`.
        """
        step, budget, stop = batch[-1].report.step, answer.get("budget"), answer.get("stop")
        if isinstance(stop, str):
            self._stopped = True
            self._taken(batch)
            return {"step": step, "stop": stop}
        if isinstance(budget, bool) or not isinstance(budget, int):
            raise ValueError(f"the answer has neither budget nor stop: {str(answer)[:200]}")
        self._taken(batch)
        if budget <= self.budget:
            return None
        self.budget = budget
        return {"step": step, "budget": budget}

    def refused(self, batch: tuple[Waiting, ...]) -> Report | None:
        """Return the report that will never be taken, or None where a smaller batch is to find it."""
        if len(batch) > 1:
            self._most = len(batch) // 2
            return None
        self._forget(batch[-1].number)
        return batch[-1].report

    def _taken(self, batch: tuple[Waiting, ...]) -> None:
        self._forget(batch[-1].number)
        self._most = min(self._most * 2, MOST_WAITING)

    def _forget(self, number: int) -> None:
        for each in self._waiting:
            if each.number <= number:
                self.acknowledged[each.source] = Acknowledged(each.end, each.report.step)
        self._keep([each for each in self._waiting if each.number > number])

    def _thin(self) -> None:
        """Let every other report go, but not the first result, the last checkpoint and the last report."""
        saved = next((each for each in reversed(self._waiting) if each.report.checkpoint), None)
        kept = (self._first_result(), saved, self._waiting[-1])
        self._keep([each for i, each in enumerate(self._waiting) if i % 2 or each in kept])

    def _keep(self, waiting: list[Waiting]) -> None:
        self._waiting = waiting
        self._bytes = sum(len(each.wire.encode()) for each in waiting)

    def _first_result(self) -> Waiting | None:
        return next((each for each in self._waiting if self._is_result(each.report)), None)

    def _is_result(self, report: Report) -> bool:
        has_objective = not self._objective or self._objective in report.metrics
        return not self._stopped and report.step >= self.budget and has_objective

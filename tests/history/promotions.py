"""Rules about who goes on: at each decision, everything known by then is counted anew.

Of `adaptive` only what needs no forecast can be said; `halvard replay` says the rest. Whether a control was drawn at
random, neither.
"""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from halvard import scheduler_spec
from halvard.study import Objective
from history.lives import hyperband_bracket, ladder
from history.records import Decided, Event, History, Result, Violation, Withdrawn, timeline

NOTHING_LEFT = ("TrialsFinished", "SearchSpaceExhausted", "NoResult")  # why a study ends that could go on
FEWEST = 2  # results from which `adaptive` lets one go on


class Rung(NamedTuple):
    """A rung of a bracket."""

    bracket: int
    budget: int


class Known:
    """What is known at one moment: of each rung the results in order, who waits there, and who trains towards it."""

    def __init__(self, objective: Objective) -> None:
        self.lower_is_better = objective.goal == "minimize"
        self.ranked = defaultdict[Rung, list[tuple[float, int]]](list)  # (score, trial), infinity where not finite
        self.waiting = defaultdict[Rung, set[int]](set)  # finite, not promoted, not withdrawn
        self.fresh = defaultdict[Rung, set[int]](set)  # came since a control was last drawn there
        self.towards = defaultdict[Rung, set[int]](set)
        self.promoted = Counter[Rung]()
        self.begun = 0

    def take(self, event: Event) -> None:
        match event:
            case Decided():
                self.towards[Rung(event.bracket, event.budget)].add(event.trial)
                self.waiting[Rung(event.bracket, event.start)].discard(event.trial)
                self.promoted[Rung(event.bracket, event.start)] += event.start > 0
                if event.control:
                    self.fresh[Rung(event.bracket, event.start)].clear()
                self.begun += event.start == 0
            case Result():
                rung = Rung(event.bracket, event.budget)
                self.towards[rung].discard(event.trial)
                score = self.score(event.value)
                insort(self.ranked[rung], (score, event.trial))
                self.fresh[rung].add(event.trial)
                if score < float("inf"):
                    self.waiting[rung].add(event.trial)
            case Withdrawn():
                for group in (*self.towards.values(), *self.waiting.values()):
                    group.discard(event.trial)

    def score(self, value: float | None) -> float:
        if value is None:
            return float("inf")
        return value if self.lower_is_better else -value

    def places(self, rung: Rung) -> dict[int, int]:
        """The place of each trial that waits at a rung among all its results, the best first."""
        ranked = enumerate(self.ranked[rung], start=1)
        return {trial: place for place, (_, trial) in ranked if trial in self.waiting[rung]}

    def best(self, rung: Rung) -> int | None:
        return next(iter(self.places(rung)), None)


class Judge(Protocol):
    """Knows who is due."""

    def rungs(self, known: Known) -> Iterator[Rung]:
        """All rungs, in the order in which those who are due there go on."""

    def due(self, known: Known, rung: Rung) -> int | None:
        """The trial that is the next to go on from this rung."""


class Asha:
    """The best floor(n / eta) of the n results of a rung go on, below `grace` all; from the top rung down."""

    def __init__(self, asha: scheduler_spec.Asha, budgets: list[int]) -> None:
        self.asha, self.budgets = asha, budgets

    def rungs(self, known: Known) -> Iterator[Rung]:  # noqa: ARG002
        return (Rung(bracket, b) for b in reversed(self.budgets[:-1]) for bracket in range(self.asha.brackets))

    def due(self, known: Known, rung: Rung) -> int | None:
        best = known.best(rung)
        return best if best is not None and known.places(rung)[best] <= self.go_on(known, rung) else None

    def go_on(self, known: Known, rung: Rung) -> int:
        results = len(known.ranked[rung])
        return results if rung.budget < self.asha.grace else results // self.asha.reduction_factor


class Hyperband:
    """Of n trials floor(n / eta^k) come to rung k, once all that were to come to the one below have their results."""

    def __init__(self, history: History, budgets: list[int]) -> None:
        limits, begun = history.study.spec.limits, len(history.trials)
        self.scheduler, self.budgets = history.study.spec.scheduler, budgets
        self.total = begun if history.over or begun == limits.trials else None  # None: more may begin
        assert self.scheduler.hyperband is not None
        self.eta = self.scheduler.hyperband.reduction_factor

    def rungs(self, known: Known) -> Iterator[Rung]:
        seen = dict.fromkeys(hyperband_bracket(self.scheduler, index)[:2] for index in range(known.begun))
        return (Rung(bracket, budget) for bracket, skipped in seen for budget in self.budgets[skipped:-1])

    def due(self, known: Known, rung: Rung) -> int | None:
        bracket, skipped, size, end = self._bracket(rung.bracket)
        for level, budget in enumerate(self.budgets[skipped:-1]):
            this = Rung(bracket, budget)
            incomplete = level == 0 and known.begun < end and known.begun != self.total
            if known.towards[this] or incomplete:
                return None
            best = known.best(this)
            if best is not None and known.promoted[this] < size // self.eta ** (level + 1):
                return best if this == rung else None
        return None

    def _bracket(self, number: int) -> tuple[int, int, int, int]:
        index = 0
        while (bracket := hyperband_bracket(self.scheduler, index))[0] < number:
            index = bracket[3]
        return bracket


def promotions(history: History) -> Iterator[Violation]:
    """Who went on was due, the best of its rung, and before all that came after it; controls had their slots."""
    scheduler, known = history.study.spec.scheduler, Known(history.study.spec.objective)
    budgets = ladder(scheduler)
    judge: Asha | Hyperband | None = None
    if scheduler.asha:
        judge = Asha(scheduler.asha, budgets)
    elif scheduler.hyperband:
        judge = Hyperband(history, budgets)
    for event in timeline(history.trials):
        if isinstance(event, Decided):
            if isinstance(judge, Asha) and event.start:
                yield from _control(judge, known, event)
            if judge is not None and not event.control:
                yield from _decision(judge, known, event)
            elif scheduler.adaptive and event.start:
                yield from _adaptive(scheduler.adaptive, known, event)
        known.take(event)
    nothing_left = any(c.status == "True" and c.reason in NOTHING_LEFT for c in history.study.status.conditions)
    if judge is not None and nothing_left and (first := _first(judge, known)):
        yield Violation("precedence", first[0], f"it was due at {first[1]} when the study ended")


def _first(judge: Judge, known: Known) -> tuple[int, Rung] | None:
    """The trial that is the next to go on, and from where."""
    return next(((trial, rung) for rung in judge.rungs(known) if (trial := judge.due(known, rung)) is not None), None)


def _decision(judge: Judge, known: Known, event: Decided) -> Iterator[Violation]:
    first = _first(judge, known)
    rung = Rung(event.bracket, event.start)
    if not event.start:
        if first:
            yield Violation("precedence", event.trial, f"it began while trial {first[0]} was due at {first[1]}")
    elif judge.due(known, rung) != event.trial:
        yield Violation("merit", event.trial, _standing(known, event))
    elif first != (event.trial, rung):
        yield Violation("precedence", event.trial, f"it went on from {rung} before {first}")


def _control(judge: Asha, known: Known, event: Decided) -> Iterator[Violation]:
    """Every round(1 / control)-th promotion is of one that waits and is not due, and came since the last such one.

    Where the rung has none, the one that is due goes on.
    """
    rung, number = Rung(event.bracket, event.start), known.promoted.total() + 1
    places, go_on = known.places(rung), judge.go_on(known, rung)
    others = {trial for trial, place in places.items() if place > go_on} & known.fresh[rung]
    slot = bool(judge.asha.control) and number % round(1 / judge.asha.control) == 0
    first = _first(judge, known)
    if event.control and not (slot and event.trial in others and first and first[1] == rung):
        yield Violation("control", event.trial, f"promotion {number}; {first} was due: {_standing(known, event)}")
    if not event.control and slot and others:
        yield Violation("control", event.trial, f"promotion {number} was for one of {sorted(others)}")


def _adaptive(adaptive: scheduler_spec.Adaptive, known: Known, event: Decided) -> Iterator[Violation]:
    """Whoever goes on waits at a rung with two results; without a forecast, as ASHA has it."""
    rung = Rung(event.bracket, event.start)
    places, results = known.places(rung), len(known.ranked[rung])
    right = event.trial in places and results >= FEWEST
    if right and "(as asha: " in event.why:
        right = event.trial == known.best(rung) and places[event.trial] <= results // adaptive.reduction_factor
    if not right:
        yield Violation("merit", event.trial, _standing(known, event))


def _standing(known: Known, event: Decided) -> str:
    """Where a trial stood when it went on."""
    rung = Rung(event.bracket, event.start)
    ranked = known.ranked[rung]
    scores = {trial: score for score, trial in ranked}
    if event.trial not in scores:
        return f"it had no result at {rung}"
    place = 1 + bisect_left(ranked, (scores[event.trial], event.trial))
    return f"it was place {place} of {len(ranked)} at {rung}, where {known.places(rung)} waited (trial: place)"

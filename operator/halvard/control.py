"""What early stopping loses, as far as trials tell that were drawn to go on though they were not due. Pure.

With `asha.control` some trials that are not due at a rung are drawn and go on to the next one all the same. A trial was
*stopped too soon* if at the next rung it would have been good enough to go on: at least as good as the last of the best
1/eta of those that came there because they were due, equal ones by their index as on any rung. Each trial drawn stands
for those it was drawn from that, like itself, have not come to be due since. So the share of those stopped too soon can
be estimated, whatever the values and the order in which they came. Where a rung says nothing about the next one, that
share is 1/eta. What was weighed: docs/decisions/0017. It says nothing of how the few best ones end, which the condition
`LateBloomers` looks at.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import takewhile
from typing import NamedTuple

from halvard.scheduler_spec import Asha
from halvard.study import Goal, sign_of
from halvard.study_status import ControlRung, ControlShare, ControlStatus
from halvard.trial import Trial

CONFIDENCE = 0.9
BISECTIONS = 40
OF_THE_BEST = "the very best are too few for this to tell of them"  # of whom one may be lost at each rung
_Key = tuple[float, int]  # (value where less is better, trial index)


@dataclass(frozen=True, slots=True)
class Draw:
    """A trial that was drawn, from how many, and whether it was good enough at the next rung.

    `stood_for`: those of them, itself included, that never were due; by index.
    """

    index: int
    among: int
    stood_for: tuple[int, ...]
    good: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """A rung of one bracket: how many trials were stopped there, and those drawn that have come to the next rung.

    `bar`: the last there that is good enough: its value, where less is better, and index; None while too few have come.
    """

    bracket: int
    budget: int
    stopped: int
    bar: tuple[float, int] | None
    draws: tuple[Draw, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share and its 90 % interval."""

    estimate: float
    low: float
    high: float


def control_status(asha: Asha, goal: Goal, trials: Iterable[Trial]) -> ControlStatus | None:
    """Returns what the study's controls tell; None where it has none."""
    if not asha.control:
        return None
    found = stops(asha, goal, trials)
    budgets = sorted({stop.budget for stop in found})
    shown = {budget: _shown([stop for stop in found if stop.budget == budget]) for budget in budgets}
    rungs = tuple(ControlRung(budget=budget, **dict(here)) for budget, here in shown.items())
    return ControlStatus(message=message(found, asha.reduction_factor), total=_shown(found), rungs=rungs)


def stops(asha: Asha, goal: Goal, trials: Iterable[Trial]) -> list[Stop]:
    """Returns every rung of every bracket at which somebody can be stopped, the brackets in order."""
    budgets = asha.budgets
    rungs: dict[tuple[int, int], list[_Entry]] = {
        (bracket, budget): []
        for bracket in range(asha.brackets)
        for budget in budgets[bracket:-1]
        if budget >= asha.grace
    }
    for trial in trials:
        for budget, entry in _entries(trial, sign_of(goal)):
            if (rung := rungs.get((trial.spec.bracket, budget))) is not None:
                rung.append(entry)
    return [_stop(*key, entries, asha.reduction_factor) for key, entries in rungs.items()]


def share(found: Iterable[Stop]) -> Share | None:
    """Returns the share of those stopped that were stopped too soon; None where none of them was drawn.

    Each draw counts by how many it stands for. The interval is Clopper and Pearson's for the effective size of such
    a sample (Korn and Graubard, Survey Methodology 24, 1998).
    """
    draws = [draw for stop in found for draw in stop.draws]
    if not draws:
        return None
    weights = [len(draw.stood_for) for draw in draws]
    estimate = sum(weight for weight, draw in zip(weights, draws, strict=True) if draw.good) / sum(weights)
    size = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    return Share(estimate, *interval(estimate * size, size))


def interval(hits: float, size: float) -> tuple[float, float]:
    """Returns Clopper and Pearson's interval for a share of which a sample of `size` had `hits`; neither need be whole.

    As quantiles of the beta distribution.
    """
    tail = (1 - CONFIDENCE) / 2
    low = _quantile(tail, hits, size - hits + 1) if hits > 0 else 0.0
    high = _quantile(1 - tail, hits + 1, size - hits) if hits < size else 1.0
    return low, high


def message(found: Sequence[Stop], eta: int) -> str:
    """Returns what the controls tell, for people."""
    total = _shown(found)
    were = "was" if total.good == 1 else "were"
    begins = f"{total.stopped} times a trial was stopped early; {total.drawn} of these, drawn at random, trained on"
    known = share(found)
    if known is None:
        return f"{begins}: nothing is known yet of how often early stopping errs"
    return (
        f"{begins} all the same, and {total.good} {were} good enough at the next rung to go on. So about "
        f"{known.estimate:.0%} were stopped too soon (90 % sure: {known.low:.0%} to {known.high:.0%}; "
        f"stopping blindly would make it {1 / eta:.0%}): {_verdict(found, known, 1 / eta)}"
    )


def _verdict(found: Iterable[Stop], known: Share, blindly: float) -> str:
    if known.high <= blindly / 2:
        return f"from one rung to the next, early stopping errs seldom; {OF_THE_BEST}"
    if known.low < blindly / 2:
        return "too few were drawn to say more"
    worst = max((stop for stop in found if stop.draws), key=lambda stop: (_of(stop).low, stop.budget))
    return f"early stopping errs often; set grace above {worst.budget}, or a higher minBudget"


def _of(stop: Stop) -> Share:
    return share([stop]) or Share(0.0, 0.0, 1.0)


def _shown(found: Sequence[Stop]) -> ControlShare:
    draws = [draw for stop in found for draw in stop.draws]
    known = share(found)
    return ControlShare(
        stopped=sum(stop.stopped for stop in found),
        drawn=len(draws),
        good=sum(draw.good for draw in draws),
        estimate=None if known is None else round(known.estimate, 4),
        low=None if known is None else round(known.low, 4),
        high=None if known is None else round(known.high, 4),
    )


class _Entry(NamedTuple):
    """A trial at a rung. `order`: when its result came; `decided`: when it went on; `over`: when it failed.

    Infinite where it did not. `above`: its value at the next rung, infinite where it was not finite or the trial
    failed, None where it has none yet. Less is better.
    """

    key: _Key
    order: int
    decided: float
    control: bool
    over: float
    above: float | None

    @property
    def waits(self) -> bool:
        return self.decided == math.inf

    @property
    def may_go_on(self) -> bool:
        return self.key[0] < math.inf and not (self.waits and self.over < math.inf)


def _entries(trial: Trial, sign: int) -> Iterator[tuple[int, _Entry]]:
    """The trial at each rung where it has a result, with the rung's budget."""
    spec, status = trial.spec, trial.status
    failed = status.state == "Failed"
    over = status.order if failed else math.inf
    for place, result in enumerate(status.rungs):
        key = _score(result.value, sign), spec.index
        if place + 1 < len(status.rungs):
            later = status.rungs[place + 1]
            entry = _Entry(key, result.order, later.decided, later.control, over, _score(later.value, sign))
        elif spec.budget > result.budget:
            entry = _Entry(key, result.order, spec.order, spec.control, over, math.inf if failed else None)
        else:
            entry = _Entry(key, result.order, math.inf, False, over, None)  # noqa: FBT003  # in the order of the fields
        yield result.budget, entry


def _score(value: float | None, sign: int) -> float:
    return math.inf if value is None else sign * value


def _stop(bracket: int, budget: int, entries: Sequence[_Entry], eta: int) -> Stop:
    due, drawn = _history(entries, eta)
    merit = [entry for entry in entries if not entry.waits and (not entry.control or entry.key in due)]
    stopped = {e.key for e in entries if e.may_go_on and e.key not in due and (e.waits or e.control)}
    came = sorted((entry.above, entry.key[1]) for entry in merit if entry.above is not None)
    bar = came[len(came) // eta - 1] if len(came) >= eta else None
    if bar is None or bar[0] == math.inf:
        return Stop(bracket, budget, len(stopped), None, ())
    draws = []
    # a draw without a result ends the sample: those after it that have one are those that train fast
    for entry, among in takewhile(lambda each: each[0].above is not None, drawn):
        if entry.key in stopped and entry.above is not None:
            stood_for = tuple(sorted(key[1] for key in among if key in stopped))
            draws.append(Draw(entry.key[1], len(among), stood_for, (entry.above, entry.key[1]) <= bar))
    return Stop(bracket, budget, len(stopped), bar, tuple(draws))


def _history(entries: Sequence[_Entry], eta: int) -> tuple[set[_Key], list[tuple[_Entry, list[_Key]]]]:
    """Goes through what happened at a rung, in order.

    Returns those that are due by now, or have been since the draw that they took part in (whether they were drawn does
    not matter, and must not); and each that was drawn, with those that it was drawn from, itself included.
    """
    happened = [(entry.order, entry, False) for entry in entries]
    happened += [(int(entry.decided), entry, True) for entry in entries if entry.control]
    ranked: list[_Key] = []
    watched: list[_Key] = []  # a heap of those that took part in a draw and were not due since
    came: list[_Entry] = []  # since the last draw
    due, drawn = set[_Key](), []
    for order, entry, is_draw in sorted(happened, key=lambda each: each[0]):
        if is_draw:
            waiting = [e for e in came if e.key[0] < math.inf and e.decided >= order and e.over > order]
            among = [e.key for e in waiting if bisect_left(ranked, e.key) >= len(ranked) // eta]
            drawn.append((entry, among))
            came = []
            for key in among:
                heappush(watched, key)
        else:
            insort(ranked, entry.key)
            came.append(entry)
        while watched and bisect_left(ranked, watched[0]) < len(ranked) // eta:
            due.add(heappop(watched))
    return due | set(ranked[: len(ranked) // eta]), drawn


def _quantile(probability: float, a: float, b: float) -> float:
    """The quantile of the beta distribution, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The distribution function of the beta distribution, by the tail whose fraction converges faster."""
    return 1 - _lower_tail(1 - x, b, a) if x > (a + 1) / (a + b + 2) else _lower_tail(x, a, b)


def _lower_tail(x: float, a: float, b: float) -> float:
    """The incomplete beta function as a continued fraction: Abramowitz and Stegun, 26.5.8, from the back."""
    if x <= 0:
        return 0.0
    fraction = 0.0
    for term in reversed(range(1, _terms(a, b))):
        half, odd = divmod(term, 2)
        if odd:
            part = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            part = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        fraction = part / (1 + fraction)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / a / (1 + fraction)


def _terms(a: float, b: float) -> int:
    return 40 + int(5 * math.sqrt(max(a, b)))

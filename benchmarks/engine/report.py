"""Tables of what was measured: medians of rounds, and between which values the rounds lie."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from benchmarks.engine.contenders import ALONE, CONTENDERS, REFERENCE, Contender, Group
from benchmarks.engine.engine import Measured
from benchmarks.results import Rounds, Table

Cells = Mapping[tuple[str, int], Sequence[Measured]]
"""The rounds of a contender with so many trials."""

Statistic = Callable[[Measured], float]
TYPICAL: Statistic = attrgetter("typical")
OF_NEW: Statistic = attrgetter("of_new")
A_TRIAL: Statistic = attrgetter("a_trial")

ASHA_AT, TIMES_BELOW = 100_000, 10  # the goal for asha, beside the fastest peer
AUTO_AT, AUTO_SECONDS = 10_000, 0.020  # the goal for auto
TWO_DIGITS = 10
NONE = "-"


def tables(cells: Cells, memory: Mapping[str, float], sizes: Sequence[int]) -> list[Table]:
    """Returns all tables; `memory`: bytes a trial by contender."""
    return [_peers(cells, sizes), _schedulers(cells, sizes), _samplers(cells, sizes), _memory(memory)]


def _peers(cells: Cells, sizes: Sequence[int]) -> Table:
    contenders, last = of_group("peers"), sizes[-1]
    ours = median(cells[REFERENCE.name, last], TYPICAL)
    rows = [
        (*_times(each, cells, sizes, TYPICAL), _ratio(median(cells[each.name, last], TYPICAL) / ours), each.what)
        for each in contenders
    ]
    columns = ("", *_headings(sizes), f"x {REFERENCE.name}", "a decision is")
    fastest = min((each for each in contenders if each.peer), key=lambda each: median(cells[each.name, last], TYPICAL))
    below = median(cells[fastest.name, last], TYPICAL) / ours
    growth = ", ".join(f"{each.name} {_growth(cells, each, sizes, TYPICAL)}" for each in (REFERENCE, ALONE))
    met = verdict(below >= TIMES_BELOW) if last == ASHA_AT else f"here of {last:,}"
    note = (
        f"Medians of all decisions. Goals, of {ASHA_AT:,} trials: {REFERENCE.name} at least {TIMES_BELOW} times below "
        f"the fastest peer ({_ratio(below)} times below {fastest.name}: {met}); growing as log n does, "
        f"{math.log(last) / math.log(sizes[0]):.2f} times ({growth})."
    )
    return Table("A decision of ASHA, beside its peers", columns, rows, note, _raw(cells, contenders, sizes))


def _schedulers(cells: Cells, sizes: Sequence[int]) -> Table:
    contenders = of_group("schedulers")
    rows = [_times(each, cells, sizes, TYPICAL) for each in contenders]
    note = "Medians of all decisions; of median and patience most are about a report on the way."
    return Table("Schedulers", ("", *_headings(sizes)), rows, note, _raw(cells, contenders, sizes))


def _samplers(cells: Cells, sizes: Sequence[int]) -> Table:
    contenders = of_group("samplers")
    rows = []
    for each in contenders:
        whole = [_duration(median(cells[each.name, size], A_TRIAL)) for size in sizes]
        rows.append((*_times(each, cells, sizes, OF_NEW), *whole))
    columns = ("", *_headings(sizes), *(f"a trial of {size:,}" for size in sizes))
    note = (
        "Medians of the decisions that began a trial. *A trial*: the time of all decisions by the number of those, so "
        "what going on costs is in it, and fitting a model now and then."
    )
    auto = cells.get(("asha + auto", AUTO_AT))
    if auto:
        took = median(auto, A_TRIAL)
        goal, met = f"{AUTO_SECONDS * 1000:.0f} ms a trial at {AUTO_AT:,}", verdict(took <= AUTO_SECONDS)
        note += f" Goal: auto at most {goal} ({_duration(took)}: {met})."
    return Table("Samplers, with asha", columns, rows, note, _raw(cells, contenders, sizes))


def _memory(memory: Mapping[str, float]) -> Table:
    rows = [(name, f"{each / 1024:.1f} KiB") for name, each in memory.items()]
    note = (
        "What Python allocates and the search holds on to, of trials with nine parameters and one to five results. Ray "
        "Tune's scheduler and asha alone know no parameters; who runs the trials holds those beside them."
    )
    return Table("A trial in memory", ("", "a trial"), rows, note, {name: [[each]] for name, each in memory.items()})


def of_group(group: Group) -> list[Contender]:
    return [each for each in CONTENDERS if group in each.groups]


def median(rounds: Sequence[Measured], statistic: Statistic) -> float:
    """Returns the median of the rounds, without those that have none."""
    values = [value for value in map(statistic, rounds) if not math.isnan(value)]
    return statistics.median(values) if values else math.nan


def verdict(met: bool) -> str:  # noqa: FBT001
    return "met" if met else "missed"


def _headings(sizes: Sequence[int]) -> tuple[str, ...]:
    return *(f"{size:,} trials" for size in sizes), f"each round of {sizes[-1]:,}", f"{sizes[-1]:,} : {sizes[0]:,}"


def _times(each: Contender, cells: Cells, sizes: Sequence[int], statistic: Statistic) -> tuple[str, ...]:
    medians = [_duration(median(cells[each.name, size], statistic)) for size in sizes]
    rounds = [statistic(one) for one in cells[each.name, sizes[-1]]]
    spread = f"{_duration(min(rounds))} - {_duration(max(rounds))}"
    return each.name, *medians, spread, _growth(cells, each, sizes, statistic)


def _growth(cells: Cells, each: Contender, sizes: Sequence[int], statistic: Statistic) -> str:
    most, fewest = (median(cells[each.name, size], statistic) for size in (sizes[-1], sizes[0]))
    return _ratio(most / fewest)


def _ratio(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= TWO_DIGITS else f"{ratio:.2g}"


def _duration(seconds: float) -> str:
    """A time as people read it, with three digits at most."""
    if math.isnan(seconds):
        return NONE
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{float(f'{seconds * factor:.3g}'):g} {unit}"


def _raw(cells: Cells, contenders: Sequence[Contender], sizes: Sequence[int]) -> dict[str, Rounds]:
    raw: dict[str, Rounds] = {}
    for each in contenders:
        for size in sizes:
            rounds = cells[each.name, size]
            raw[f"{each.name}, {size}, new"] = [list(one.new) for one in rounds]
            raw[f"{each.name}, {size}, others"] = [list(one.others) for one in rounds]
    return raw

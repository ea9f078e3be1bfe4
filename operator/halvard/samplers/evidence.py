"""What a model-based sampler can learn from: the results of one rung, the best first."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from halvard.study import Value
from halvard.tried import Tried

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Evidence:
    """The trials with a finite result at `rung`, the best first, and those that count as worse than all of them.

    `values`: the results of the ranked ones, less being better; `hopeless`: they failed, or had a result that was not
    finite; `pending`: they have no result yet.
    """

    rung: int
    ranked: list[Mapping[str, Value]]
    values: list[float]
    hopeless: list[Mapping[str, Value]]
    pending: list[Mapping[str, Value]]


def gather(tried: Mapping[int, Tried], needed: int, sign: int) -> Evidence | str:
    """Returns the evidence of the highest rung with enough finite results, else why there is none, for people.

    `sign` is 1 where less is better and -1 where more is. The order of `tried` does not matter.
    """
    sound = {index: each for index, each in tried.items() if not (each.failed or None in each.results.values())}
    counts = Counter(budget for trial in sound.values() for budget in trial.results)
    rungs = [budget for budget, count in counts.items() if count >= needed]
    if not rungs:
        return f"{max(counts.values(), default=0)} of {needed} results"
    rung = max(rungs)
    scores = sorted(
        (sign * value, index) for index, trial in sound.items() if (value := trial.results.get(rung)) is not None
    )
    if scores[0][0] == scores[-1][0]:
        return f"all {len(scores)} results at rung {rung} are equal"
    others = sorted(tried.keys() - {index for _, index in scores})
    return Evidence(
        rung=rung,
        ranked=[tried[index].parameters for _, index in scores],
        values=[value for value, _ in scores],
        hopeless=[tried[index].parameters for index in others if index not in sound],
        pending=[tried[index].parameters for index in others if index in sound and not tried[index].results],
    )


def thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """Returns at most that many of the items, evenly spread."""
    return items[:: math.ceil(len(items) / most)] if items else items

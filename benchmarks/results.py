"""What a benchmark hands back: tables for people, and under each the raw series it was made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Rounds = list[list[float]]
"""The measurements of one series, a list for each round; times in seconds."""

LATENCY_COLUMNS = ("measured", "n", "p50", "p95", "p99", "p50 of each round", "x API create", "goal")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure: how many rounds, and whether only to see that everything works."""

    rounds: int
    quick: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One figure: `rows` are what is shown, `raw` every measurement behind them by name of the series."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    raw: dict[str, Rounds] = field(default_factory=dict)


def latency_row(name: str, rounds: Rounds, create: Rounds, goal: str) -> tuple[str, ...]:
    """Returns a row of `LATENCY_COLUMNS`; `create` is what the API server's own create took in the same rounds."""
    values = flat(rounds)
    ratio = quantile(values, 0.5) / quantile(flat(create), 0.5)
    quantiles = [milliseconds(quantile(values, share)) for share in (0.5, 0.95, 0.99)]
    return name, str(len(values)), *quantiles, spread(rounds), f"{ratio:.1f}", goal


def flat(rounds: Rounds) -> list[float]:
    """Returns the measurements of all rounds."""
    return [value for one in rounds for value in one]


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(rounds: Rounds) -> str:
    """Returns the smallest and the largest median of a round: how far to believe the numbers beside it."""
    medians = [quantile(one, 0.5) for one in rounds if one]
    return f"{min(medians) * 1000:.1f} - {max(medians) * 1000:.1f} ms"


def milliseconds(seconds: float) -> str:
    """Returns a time as people read it."""
    return f"{seconds * 1000:.1f} ms"

"""What is searched: nine numbers from 0 to 1, on the ladder 1, 3, 9, 27, 81."""

from collections.abc import Mapping

from halvard.study import Value

NAMES = tuple(f"p{number}" for number in range(9))
ETA = 3
BUDGETS = (1, 3, 9, 27, 81)
WORKERS = 16
"""Trials that train while a decision is made."""

OPTIMUM = 0.3


def loss(parameters: Mapping[str, Value], budget: int, noise: float) -> float:
    """Returns what a trial reports at a budget: something to be learnt, hidden by less noise (0 to 1) the longer it is.

    A model that finds nothing to learn would be cheaper than it is in earnest.
    """
    distance = sum((float(value) - OPTIMUM) ** 2 for value in parameters.values())
    return distance + (1 + noise) / budget


def seconds(parameters: Mapping[str, Value], steps: int) -> float:
    """Returns how long a trial trains for so many steps: some twice as long as others."""
    return steps * (1 + float(parameters[NAMES[0]]))

"""Hyperband as Algorithm 1 of Li et al. (JMLR 18, 2018) has it, line by line and one bracket at a time.

Where the paper says nothing: budgets are rounded down, the lower index wins a tie, what failed or is not finite never
goes on, and configurations that the last bracket lacks are as bad as failed ones.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import ceil, floor, isfinite

Loss = Callable[[int, int], float | None]
"""The loss of a configuration at a budget, None where it failed."""


def brackets(r: int, R: int, eta: int) -> Iterator[tuple[int, int]]:  # noqa: N803  # the paper's names
    """(s, n) of every bracket, in order."""
    s_max = max(s for s in range(64) if r * eta**s <= R)
    B = (s_max + 1) * R  # noqa: N806
    for s in range(s_max, -1, -1):
        yield s, ceil(Fraction(B, R) * Fraction(eta**s, s + 1))


def rungs(s: int, n: int, R: int, eta: int) -> list[tuple[int, int]]:  # noqa: N803
    """(n_i, r_i) of every rung of a bracket."""
    return [(floor(Fraction(n, eta**i)), floor(Fraction(R * eta**i, eta**s))) for i in range(s + 1)]


def bracket(rungs: Sequence[tuple[int, int]], eta: int, T: Sequence[int], loss: Loss) -> list[tuple[int, list[int]]]:  # noqa: N803
    """What is trained in a bracket of the configurations T: (budget, configurations in the order they are chosen)."""
    trained = []
    for n_i, r_i in rungs:
        trained.append((r_i, list(T)))
        T = top_k(T, {t: loss(t, r_i) for t in T}, n_i // eta)  # noqa: N806
    return trained


def top_k(T: Sequence[int], L: dict[int, float | None], k: int) -> list[int]:  # noqa: N803
    """The k best of T."""
    good = [(value, t) for t in T if (value := L[t]) is not None and isfinite(value)]
    return [t for _, t in sorted(good)[:k]]

"""Grid search: every combination in order, the last parameter fastest."""

from collections.abc import Sequence
from itertools import islice

from halvard.space import combinations
from halvard.study import Parameter, Value


class Grid:
    """Trial `index` has the grid's combination number `index`: constant time in order, one walk to it otherwise."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Enumerates nothing yet."""
        self._parameters = parameters
        self._combinations = combinations(parameters)
        self._next = 0

    def parameters(self, index: int) -> dict[str, Value] | None:
        """Returns the active parameters of trial `index`, or None beyond the last combination."""
        if index < self._next:
            self._combinations, self._next = combinations(self._parameters), 0
        found = next(islice(self._combinations, index - self._next, None), None)
        self._next = index if found is None else index + 1
        return found

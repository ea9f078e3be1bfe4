"""Grid search: every combination in order, the last parameter fastest."""

from collections.abc import Iterator, Mapping
from itertools import islice

from halvard.samplers.sampler import Proposal
from halvard.space import combinations, equal
from halvard.study import StudySpec, Value
from halvard.tried import Tried


class Grid:
    """The user's initial points, then every other combination: constant time in order, one walk to it otherwise.

    What an initial point leaves out has the first value that it can have.
    """

    def __init__(self, spec: StudySpec) -> None:
        """Enumerates the initial points alone."""
        self._parameters = spec.parameters
        self._initial = [next(combinations(spec.parameters, point)) for point in spec.initial_points]
        self._rest = self._combinations()
        self._next = 0

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal | None:  # noqa: ARG002  # nothing is learnt
        """Returns combination number `index`, or None beyond the last one."""
        place = index - len(self._initial)
        if place < 0:
            return Proposal(self._initial[index], f"new trial: initialPoints[{index}]")
        if place < self._next:
            self._rest, self._next = self._combinations(), 0
        found = next(islice(self._rest, place - self._next, None), None)
        self._next = place if found is None else place + 1
        return None if found is None else Proposal(found)

    def _combinations(self) -> Iterator[dict[str, Value]]:
        every = combinations(self._parameters)
        return (each for each in every if not any(equal(each, initial) for initial in self._initial))

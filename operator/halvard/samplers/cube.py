"""From points of the unit cube to trials: the user's own points first, and nothing tried twice while there is more."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from halvard.samplers.sampler import Proposal
from halvard.space import combinations, decode, equal, value_at
from halvard.study import StudySpec, Value
from halvard.tried import Tried


class Draw(NamedTuple):
    """A point of the unit cube, with a coordinate for every declared parameter, and how it was found, for people."""

    point: Sequence[float]
    why: str


class Points(Protocol):
    """Draws points of the unit cube."""

    def draws(self, index: int, tried: Mapping[int, Tried]) -> Iterator[Draw]:
        """Yields points for trial `index`, one at least: the one to take first, then those to take instead of it."""


class CubeSampler:
    """Proposes the first point drawn that was not tried yet; only points without a continuous value can be."""

    def __init__(self, spec: StudySpec, points: Points) -> None:
        """Draws nothing yet."""
        self._parameters = spec.parameters
        self._continuous = {p.name for p in spec.parameters if p.float is not None and p.float.step is None}
        self._initial = spec.initial_points
        self._points = points

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal | None:
        """Returns the user's initial point number `index`, else the first draw that is new; None where nothing is."""
        draws = self._points.draws(index, tried)
        first = next(draws)
        if index < len(self._initial):
            parameters = decode(self._parameters, first.point, self._initial[index])
            return Proposal(parameters, f"new trial: initialPoints[{index}]")
        parameters = decode(self._parameters, first.point)
        if self._unique(parameters) or not any(equal(parameters, other.parameters) for other in tried.values()):
            return Proposal(parameters, first.why)
        return self._another(first.point, draws, {_key(other.parameters) for other in tried.values()})

    def _another(self, point: Sequence[float], draws: Iterator[Draw], known: set[Hashable]) -> Proposal | None:
        """The next draw that is new; where there is none, the first combination on a walk through all from the last."""
        for draw in draws:
            point, parameters = draw.point, decode(self._parameters, draw.point)
            if self._unique(parameters) or _key(parameters) not in known:
                return Proposal(parameters, draw.why)
        axes = zip(self._parameters, point, strict=True)
        drawn = {parameter.name: value_at(parameter, u) for parameter, u in axes if parameter.name in self._continuous}
        for parameters in combinations(self._parameters, drawn, start=point):
            if self._unique(parameters) or _key(parameters) not in known:
                return Proposal(parameters, "new trial: random, of the combinations that were not tried")
        return None

    def _unique(self, parameters: Mapping[str, Value]) -> bool:
        """Whether no other trial can be the same, as one of the values is a real number."""
        return not self._continuous.isdisjoint(parameters)


def _key(parameters: Mapping[str, Value]) -> Hashable:
    """The same for equal parameters only, whatever their order; True and 1 are two values."""
    return frozenset((name, isinstance(value, bool), value) for name, value in parameters.items())

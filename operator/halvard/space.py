"""The search space: which parameters are active, from the unit cube to values and back, every combination of a grid."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from types import MappingProxyType
from typing import TypeVar

from halvard.model import LARGEST
from halvard.study import FloatRange, IntRange, Parameter, Value

T = TypeVar("T")

_NONE: Mapping[str, Value] = MappingProxyType({})


def decode(
    parameters: Sequence[Parameter], point: Sequence[float], given: Mapping[str, Value] = _NONE
) -> dict[str, Value]:
    """Returns the active parameters at a point of the unit cube: one coordinate in [0, 1] for each declared parameter.

    A parameter that is `given` has that value wherever it is active. Raises ValueError where the number of coordinates
    is another one.
    """
    values: dict[str, Value] = {}
    for parameter, u in zip(parameters, point, strict=True):
        if is_active(parameter, values):
            values[parameter.name] = given[parameter.name] if parameter.name in given else value_at(parameter, u)
    return values


def encode(parameters: Sequence[Parameter], values: Mapping[str, Value]) -> list[float]:
    """Returns the point of the unit cube that decodes to these values, in the middle of all that do.

    A coordinate is NaN where the parameter is inactive or the value is not one of its own.
    """
    return [
        _coordinate(parameter, values[parameter.name]) if parameter.name in values else math.nan
        for parameter in parameters
    ]


def combinations(
    parameters: Sequence[Parameter],
    given: Mapping[str, Value] = _NONE,
    chosen: Mapping[str, Value] = _NONE,
    start: Sequence[float] | None = None,
) -> Iterator[dict[str, Value]]:
    """Yields every combination of active parameters once, the last parameter fastest; `chosen` come before them.

    A parameter that is `given` has that one value. With a `start`, a point of the unit cube, each parameter begins with
    a value as far along its own as that, and after the last comes the first. Raises ValueError at another float without
    a step, which has no end of values.
    """
    if not parameters:
        yield dict(chosen)
        return
    first, rest, later = parameters[0], parameters[1:], start[1:] if start else None
    if not is_active(first, chosen):
        yield from combinations(rest, given, chosen, later)
        return
    for value in (given[first.name],) if first.name in given else _grid(first, start[0] if start else 0.0):
        yield from combinations(rest, given, {**chosen, first.name: value}, later)


def is_active(parameter: Parameter, values: Mapping[str, Value]) -> bool:
    """Returns whether every parent named in `when` is active, that is among `values`, with one of the values given."""
    return all(
        parent in values and any(_same(values[parent], value) for value in allowed)
        for parent, allowed in parameter.when.items()
    )


def equal(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    """Returns whether two trials have the same parameters."""
    return one == other and all(_same(value, other[name]) for name, value in one.items())


def _same(one: Value, other: Value) -> bool:
    # Python holds True == 1, people do not; 1 == 1.0 they do
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def value_at(parameter: Parameter, u: float) -> Value:
    """Returns the parameter's value at a coordinate in [0, 1]."""
    if parameter.choice is not None:
        return parameter.choice[_place(len(parameter.choice), u)]
    if parameter.int is not None:
        return _int(parameter.int, u)
    if parameter.float is not None:
        return _float(parameter.float, u)
    raise _untyped(parameter)


def _coordinate(parameter: Parameter, value: Value) -> float:
    if parameter.choice is not None:
        places = (place for place, choice in enumerate(parameter.choice) if _same(choice, value))
        return (next(places, math.nan) + 0.5) / len(parameter.choice)
    axis = parameter.float or parameter.int
    if axis is None or isinstance(value, str):
        return math.nan
    low, high = float(axis.min), float(axis.max)
    step = axis.step or (1 if parameter.int is not None else 0)
    if step and (high - low) / step < math.inf:  # each value has a share of the interval and lies in its middle
        low, high = low - step / 2, low + math.floor((high - low) / step + 1e-9) * step + step / 2
    # neither a difference of logarithms nor one of halves overflows
    low, high, at = (math.log(x) if axis.scale == "log" else x / 2 for x in (low, high, value))
    return _clip((at - low) / (high - low), 0.0, 1.0) if high > low else 0.5


def _grid(parameter: Parameter, start: float) -> Iterable[Value]:
    """All values in order, from one at the share `start` of them on and round to it."""
    if parameter.choice is not None:
        return _round(parameter.choice, len(parameter.choice), start)
    if parameter.int is not None:
        values = range(parameter.int.min, parameter.int.max + 1, parameter.int.step or 1)
        return _round(values, len(values), start)
    if parameter.float is None:
        raise _untyped(parameter)
    if parameter.float.step is None:
        raise ValueError(f"parameter {parameter.name!r}: a float in a grid needs a step")
    minimum, step, last = _exact_grid(parameter.float, parameter.float.step)
    return (float(minimum + k * step) for k in _round(range(last + 1), last + 1, start))


def _round(values: Sequence[T], count: int, start: float) -> Iterable[T]:
    """The values from the one at this share of so many on and round to it; a range of 2^63 cannot tell its length."""
    place = _place(count, start)
    return chain(values[place:], values[:place])


def _untyped(parameter: Parameter) -> ValueError:
    return ValueError(f"parameter {parameter.name!r} needs one of float, int and choice")


def _int(axis: IntRange, u: float) -> int:
    if axis.scale == "linear":
        step = axis.step or 1
        return axis.min + step * _place((axis.max - axis.min) // step + 1, u)
    # half an integer more at both ends, so that these have their whole share of the log-uniform law too
    value = _log_uniform(axis.min - 0.5, axis.max + 0.5, u)
    return min(axis.min + max(round(value - axis.min), 0), axis.max)


def _float(axis: FloatRange, u: float) -> float:
    if axis.step is not None:
        minimum, step, last = _exact_grid(axis, axis.step)
        return float(minimum + _place(last + 1, u) * step)
    if axis.scale == "log":
        return _log_uniform(axis.min, axis.max, u)
    return _clip((1 - u) * axis.min + u * axis.max, axis.min, axis.max)


def _exact_grid(axis: FloatRange, step: float) -> tuple[Fraction, Fraction, int]:
    """Minimum, step and index of the last point, in the decimals the user wrote: 0 to 0.3 by 0.1 has four points."""
    minimum, maximum, exact_step = (Fraction(repr(number)) for number in (axis.min, axis.max, step))
    return minimum, exact_step, (maximum - minimum) // exact_step


def _log_uniform(low: float, high: float, u: float) -> float:
    exponent = (1 - u) * math.log(low) + u * math.log(high)
    return _clip(math.exp(min(exponent, math.log(high))), low, high)


def _place(count: int, u: float) -> int:
    """Which of so many values a coordinate means: each has the same share."""
    share = u * count if count <= LARGEST else Fraction(u) * count  # a count may be beyond all floats
    return min(int(share), count - 1)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)

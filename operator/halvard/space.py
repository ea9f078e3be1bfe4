"""The search space: which parameters are active, from the unit cube to values, and every combination of a grid."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from halvard.study import FloatRange, IntRange, Parameter, Value


def decode(parameters: Sequence[Parameter], point: Sequence[float]) -> dict[str, Value]:
    """Returns the active parameters at a point of the unit cube: one coordinate in [0, 1] for each declared parameter.

    Raises ValueError where the number of coordinates is another one.
    """
    values: dict[str, Value] = {}
    for parameter, u in zip(parameters, point, strict=True):
        if is_active(parameter, values):
            values[parameter.name] = _value(parameter, float(u))
    return values


def combinations(
    parameters: Sequence[Parameter], chosen: Mapping[str, Value] | None = None
) -> Iterator[dict[str, Value]]:
    """Yields every combination of active parameters once, the last parameter fastest; `chosen` come before them.

    Raises ValueError at a float without a step, which has no end of values.
    """
    values = dict(chosen or {})
    if not parameters:
        yield values
    elif not is_active(parameters[0], values):
        yield from combinations(parameters[1:], values)
    else:
        for value in _grid(parameters[0]):
            yield from combinations(parameters[1:], {**values, parameters[0].name: value})


def is_active(parameter: Parameter, values: Mapping[str, Value]) -> bool:
    """Returns whether every parent named in `when` is active, that is among `values`, with one of the values given."""
    return all(
        parent in values and any(_same(values[parent], value) for value in allowed)
        for parent, allowed in parameter.when.items()
    )


def _same(one: Value, other: Value) -> bool:
    # Python holds True == 1, people do not; 1 == 1.0 they do
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _value(parameter: Parameter, u: float) -> Value:
    if parameter.choice is not None:
        return parameter.choice[min(int(u * len(parameter.choice)), len(parameter.choice) - 1)]
    if parameter.int is not None:
        return _int(parameter.int, u)
    if parameter.float is not None:
        return _float(parameter.float, u)
    raise _untyped(parameter)


def _grid(parameter: Parameter) -> Iterable[Value]:
    if parameter.choice is not None:
        return parameter.choice
    if parameter.int is not None:
        return range(parameter.int.min, parameter.int.max + 1, parameter.int.step or 1)
    if parameter.float is None:
        raise _untyped(parameter)
    if parameter.float.step is None:
        raise ValueError(f"parameter {parameter.name!r}: a float in a grid needs a step")
    minimum, step, last = _exact_grid(parameter.float, parameter.float.step)
    return (float(minimum + k * step) for k in range(last + 1))


def _untyped(parameter: Parameter) -> ValueError:
    return ValueError(f"parameter {parameter.name!r} needs one of float, int and choice")


def _int(axis: IntRange, u: float) -> int:
    step = axis.step or 1
    last = (axis.max - axis.min) // step
    if axis.scale == "linear":
        return axis.min + step * min(int(u * (last + 1)), last)
    # half an integer more at both ends, so that these have their whole share of the log-uniform law too
    value = _log_uniform(axis.min - 0.5, axis.min + step * last + 0.5, u)
    return axis.min + step * _nearest((value - axis.min) / step, last)


def _float(axis: FloatRange, u: float) -> float:
    if axis.step is not None:
        return _stepped_float(axis, axis.step, u)
    if axis.scale == "log":
        return _log_uniform(axis.min, axis.max, u)
    return _clip((1 - u) * axis.min + u * axis.max, axis.min, axis.max)


def _stepped_float(axis: FloatRange, step: float, u: float) -> float:
    """Linear: every point of the grid has the same share. Log: the log-uniform value, moved to the nearest point."""
    minimum, exact_step, last = _exact_grid(axis, step)
    if axis.scale == "linear":
        k = min(int(u * (last + 1)), last)
    else:
        value = _log_uniform(axis.min, float(minimum + last * exact_step), u)
        k = _nearest((value - axis.min) / step, last)
    return float(minimum + k * exact_step)


def _exact_grid(axis: FloatRange, step: float) -> tuple[Fraction, Fraction, int]:
    """Minimum, step and index of the last point, in the decimals the user wrote: 0 to 0.3 by 0.1 has four points."""
    minimum, maximum, exact_step = (Fraction(repr(number)) for number in (axis.min, axis.max, step))
    return minimum, exact_step, (maximum - minimum) // exact_step


def _log_uniform(low: float, high: float, u: float) -> float:
    exponent = (1 - u) * math.log(low) + u * math.log(high)
    return _clip(math.exp(min(exponent, math.log(high))), low, high)


def _nearest(position: float, last: int) -> int:
    return min(max(round(position), 0), last)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)

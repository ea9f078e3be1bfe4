"""A table of recorded learning curves: what trainings of many configurations reported, and how long each step took."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from halvard.space import encode
from halvard.study import Goal, Parameter, StudySpec, Value

Floats = NDArray[np.float64]

SHAPES = {
    "names": "one name for each coordinate",
    "u": "rows x coordinates",
    "value": "rows x steps",
    "seconds": "rows x steps",
}


class TableError(Exception):
    """A table that is malformed, or does not fit the study; the message names the array or field and what is right."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Configurations that were trained in full: `u`, points of the unit cube, one coordinate for each of `names`.

    `value` holds what each reported after each step (NaN where it diverged), `seconds` how long the step took.
    """

    names: tuple[str, ...]
    u: Floats  # rows x coordinates
    value: Floats  # rows x steps
    seconds: Floats  # rows x steps

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Returns the table of these arrays, which may be more than are needed; raises TableError."""
        for name in SHAPES:
            if name not in arrays:
                raise TableError(
                    f"{name}: missing; a table has the arrays {', '.join(SHAPES)}; this has {_listed(arrays)}"
                )
        names = _names(arrays["names"])
        u, value, seconds = (_numbers(name, arrays[name]) for name in ("u", "value", "seconds"))
        if u.shape[1] != len(names):
            raise TableError(f"u: {u.shape[1]} columns, but names has {len(names)}: there must be one for each name")
        if len(value) != len(u):
            raise TableError(f"value: {len(value)} rows, but u has {len(u)}: there must be one for each configuration")
        if seconds.shape != value.shape:
            raise TableError(f"seconds: shape {seconds.shape}, but value has {value.shape}: they must be the same")
        _check_all("u", u, (u >= 0) & (u <= 1), "must be in [0, 1]")
        _check_all("seconds", seconds, (seconds >= 0) & np.isfinite(seconds), "must be finite and at least 0")
        return cls(names, u, value, seconds)

    @property
    def full_training(self) -> float:
        """The median duration of a full training in seconds."""
        return float(np.median(self.seconds.sum(axis=1)))

    def scaled(self, full_training: float) -> Self:
        """Returns the table with every duration multiplied so that the median full training takes so many seconds.

        Raises TableError where the table's own takes none.
        """
        if not self.full_training:
            raise TableError("seconds: the median full training takes 0 s, which no factor makes longer")
        return replace(self, seconds=self.seconds * (full_training / self.full_training))

    def best(self, goal: Goal, step: int) -> float:
        """Returns the best finite value at a step, NaN where there is none."""
        finite = self.value[np.isfinite(self.value[:, step - 1]), step - 1]
        if not len(finite):
            return float("nan")
        return float(finite.min() if goal == "minimize" else finite.max())

    def check_fits(self, spec: StudySpec, max_budget: int) -> None:
        """Raises TableError where the study has other parameters, or trains longer, than the table."""
        declared = [parameter.name for parameter in spec.parameters]
        if sorted(declared) != sorted(self.names):
            raise TableError(
                f"spec.parameters: {_listed(declared)} ({len(declared)}), but the table's coordinates are "
                f"{_listed(self.names)} ({len(self.names)}): they must have the same names"
            )
        steps = self.value.shape[1]
        if max_budget > steps:
            raise TableError(
                f"spec.scheduler: trains until {max_budget}, but the table has {steps} steps: at most that"
            )

    def point(self, parameters: Sequence[Parameter], values: Mapping[str, Value]) -> tuple[float, ...]:
        """Returns the point of the unit cube at these values, in the order of `names`, NaN where one is not active."""
        point = dict(zip((parameter.name for parameter in parameters), encode(parameters, values), strict=True))
        return tuple(point[name] for name in self.names)


class Rows:
    """The rows of a table that were not trained yet."""

    def __init__(self, table: Table) -> None:
        """All of them."""
        self._u = table.u
        self._used = np.zeros(len(table.u), dtype=bool)

    def take(self, point: Sequence[float]) -> int:
        """Returns the unused row nearest to a point of the unit cube, from now on used; a tie goes to the first.

        A coordinate that is NaN (of a parameter that is not active) counts for nothing. Raises TableError where none is
        left.
        """
        if self._used.all():
            raise TableError(f"all {len(self._used)} rows of the table are used")
        distance = np.nansum((self._u - np.asarray(point)) ** 2, axis=1)
        distance[self._used] = np.inf
        row = int(distance.argmin())
        self._used[row] = True
        return row


def _names(array: NDArray[Any]) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind != "U" or len(array) == 0:
        raise TableError(f"names: shape {array.shape} of {array.dtype}: must be a list of at least one text")
    names = tuple(str(name) for name in array)
    if len(set(names)) != len(names):
        raise TableError(f"names: {_listed(names)}: must all differ")
    return names


def _numbers(name: str, array: NDArray[Any]) -> Floats:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:  # noqa: PLR2004  # two dimensions
        raise TableError(f"{name}: shape {array.shape} of {array.dtype}: must be numbers, {SHAPES[name]}")
    return np.asarray(array, dtype=np.float64)


def _check_all(name: str, array: Floats, good: NDArray[np.bool_], right: str) -> None:
    if not good.all():
        row, column = (int(index) for index in np.argwhere(~good)[0])
        raise TableError(f"{name}[{row}, {column}]: {array[row, column]:g}: {right}")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"

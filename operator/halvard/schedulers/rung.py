"""The results at one budget of one bracket in order, and where each stands among them."""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from heapq import heappop, heappush

from halvard.study import Goal, sign_of


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one result stands among the `completed` ones at its rung, of which the best `go_on` are promoted.

    `value` is None where it is not finite: such a result has the last place. `cutoff` is the worst value that goes on,
    None where none does. `bracket` is None where there is only one. `waits`: who goes on is decided once all trials of
    the bracket have a result there. `grace`: nobody is eliminated there. `tied`: the trial of the same value on the
    other side of the cut-off, None where there is none: the lower index decided.
    """

    budget: int
    value: float | None
    place: int
    completed: int
    go_on: int
    cutoff: float | None
    top: bool
    bracket: int | None = None
    waits: bool = False
    grace: bool = False
    tied: int | None = None

    def sentence(self) -> str:
        """Returns it for people."""
        rung = f"rung {self.budget}" + ("" if self.bracket is None else f" of bracket {self.bracket}")
        if self.value is None:
            return f"value not finite, the last of {self.completed} at {rung}; it never goes on"
        sentence = f"value {self.value:g} is place {self.place} of {self.completed} at {rung}"
        if self.top:
            return f"{sentence}, the highest"
        if self.grace:
            return f"{sentence}, below grace: every finite value goes on"
        if self.tied is not None:
            sentence += f" (tied with trial {self.tied}; the lower index goes first)"
        best = "the best goes on" if self.go_on == 1 else f"the best {self.go_on} go on"
        if self.waits:
            return f"{sentence} so far; {best} once every trial of the bracket has its result there"
        if self.cutoff is None:
            return f"{sentence}; none goes on yet"
        return f"{sentence}; {best} (cut-off {self.cutoff:g})"


Key = tuple[float, int]
"""What results are ordered by, the best first: (value where lower is better, trial index), so ties have one order."""


class Rung:
    """Kept so that a decision looks up one place and sorts nothing: O(log n) and a shift inside a list."""

    def __init__(self, budget: int, goal: Goal, *, draws: bool = False) -> None:
        """Begins without results. `draws`: some that are not due are to be drawn."""
        self.budget = budget
        self.promoted = 0  # how many results went on, those that were drawn included
        self._sign = sign_of(goal)
        self._keys: dict[int, Key | None] = {}  # by trial index; None where the value is not finite
        self._ranked: list[Key] = []  # the finite ones, best first
        self._waiting: list[Key] = []  # a heap of the finite ones that were not promoted, and some that were drawn
        self._gone: set[int] = set()  # the trials that went on since this rung is kept
        self._came: list[tuple[float, int]] | None = [] if draws else None  # (order, trial index) since the last draw
        self._drawn = 0  # the order of the last stored draw

    @property
    def completed(self) -> int:
        """How many results there are, those that are not finite included."""
        return len(self._keys)

    def add(self, index: int, value: float | None, *, promoted: bool = False, order: float = math.inf) -> None:
        """Takes in the trial's result, None where it is not finite; raises ValueError where it has one already.

        `order`: its place in the study where it is a stored one, which may be added in any order.
        """
        if index in self._keys:
            raise ValueError(f"trial {index} already has a result at rung {self.budget}")
        key = (self._sign * value, index) if value is not None and math.isfinite(value) else None
        self._keys[index] = key
        self.promoted += promoted
        if key is not None:
            insort(self._ranked, key)
            if not promoted:
                heappush(self._waiting, key)
                if self._came is not None:
                    self._came.append((order, index))

    def best_waiting(self, withdrawn: set[int]) -> int | None:
        """Returns the best finite trial that was neither promoted nor withdrawn."""
        while self._waiting and (self._waiting[0][1] in withdrawn or self._waiting[0][1] in self._gone):
            heappop(self._waiting)
        return self._waiting[0][1] if self._waiting else None

    def promote(self) -> None:
        """Lets the trial go on that `best_waiting` has named."""
        self._leave(heappop(self._waiting)[1])

    def add_draw(self, order: int) -> None:
        """Takes in that a trial was drawn, at this place in the study; it was added as promoted."""
        self._drawn = max(self._drawn, order)

    def drawable(self, withdrawn: set[int], go_on: int) -> list[int]:
        """Returns, by index, those to draw from: they came since the last draw, wait, and are not the best `go_on`."""
        came = [index for order, index in self._came or [] if order > self._drawn]
        return sorted(i for i in came if i not in withdrawn and i not in self._gone and self.place(i) > go_on)

    def draw(self, index: int) -> None:
        """Lets this one go on of those that `drawable` has named."""
        self._leave(index)
        self._came = []

    def _leave(self, index: int) -> None:
        self.promoted += 1
        self._gone.add(index)

    def place(self, index: int) -> int:
        """Returns the place of the trial's result, from 1; raises KeyError where it has none."""
        key = self._keys[index]
        return self.completed if key is None else bisect_left(self._ranked, key) + 1

    def standing(
        self,
        index: int,
        go_on: int,
        *,
        top: bool,
        bracket: int | None = None,
        waits: bool = False,
        grace: bool = False,
    ) -> Standing:
        """Returns where the trial's result stands if the best `go_on` go on; raises KeyError where it has none."""
        key = self._keys[index]
        last = min(go_on, len(self._ranked))
        beside = self._ranked[last - 1 : last + 1] if last else []  # the last that goes on, the first that does not
        tied = None
        if key is not None and [value for value, _ in beside] == [key[0], key[0]]:
            tied = beside[1][1] if key <= beside[0] else beside[0][1]
        return Standing(
            budget=self.budget,
            value=None if key is None else self._sign * key[0],
            place=self.place(index),
            completed=self.completed,
            go_on=go_on,
            cutoff=self._sign * self._ranked[last - 1][0] if last else None,
            top=top,
            bracket=bracket,
            waits=waits,
            grace=grace,
            tied=tied,
        )

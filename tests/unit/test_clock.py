from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard.clock import SLEW, Clock

HOUR = 3600.0
passings = st.floats(0.0, 100.0)
jumps = st.sampled_from([0.0, HOUR, -HOUR, 0.5, -0.5])


class Machine:
    """A machine whose clock somebody sets."""

    def __init__(self) -> None:
        self.steady, self.ahead = 1000.0, 1e9

    def clock(self) -> Clock:
        return Clock(lambda: self.steady + self.ahead, lambda: self.steady)

    def passes(self, seconds: float) -> None:
        self.steady += seconds


def test_where_nobody_sets_the_clock_it_is_the_machines() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(10):
        machine.passes(7.0)
        assert clock() == pytest.approx(machine.steady + machine.ahead)


@given(st.lists(st.tuples(passings, jumps), min_size=1))
def test_it_never_goes_back_and_passes_no_slower_or_faster_than_it_may(course: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock()
    for seconds, jump in course:
        machine.ahead += jump
        machine.passes(seconds)
        passed = clock() - before
        before += passed
        assert (1 - SLEW) * seconds - 1e-5 <= passed <= (1 + SLEW) * seconds + 1e-5


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_is_made_up_for(jump: float) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.ahead += jump
    shares = [abs(off) / HOUR for off in offsets(machine, clock, hours=4)]
    assert shares[0] == 1
    assert all(later < earlier for earlier, later in pairwise(shares))
    assert shares[-1] == pytest.approx(0, abs=1e-6)


def offsets(machine: Machine, clock: Clock, *, hours: int) -> Iterator[float]:
    """How far it is off, now and after every hour."""
    yield clock() - machine.steady - machine.ahead
    for _ in range(hours):
        machine.passes(HOUR)
        yield clock() - machine.steady - machine.ahead

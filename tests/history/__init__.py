"""The history checker: pure rules that hold for every history of a study, and a list of those that do not.

It counts plainly, from the papers and the documentation, and uses no code of the schedulers: else it could not find
their faults. It is the same after a simulation and after a study in a cluster.
"""

from history.lives import brackets, numbers, orders, parallelism, rungs, states
from history.pods import attempts, faults, reports, time, writes
from history.promotions import promotions
from history.records import Accepted, History, Pod, Violation
from history.standing import standing
from history.stopping import stopping

__all__ = ["Accepted", "History", "Pod", "Violation", "assert_sound", "check"]

LIVES = (orders, rungs, brackets, states, numbers)
RULES = (parallelism, promotions, stopping, attempts, reports, time, faults, writes, standing)  # rest on those above


def check(history: History) -> list[Violation]:
    """Returns every rule that does not hold; where the trials' lives make no sense, nothing that rests on them."""
    broken = [violation for rule in LIVES for violation in rule(history)]
    return broken or [violation for rule in RULES for violation in rule(history)]


def assert_sound(history: History) -> None:
    """Raises AssertionError with every rule that does not hold."""
    assert not (broken := check(history)), "\n".join(map(str, broken))

"""The history checker: pure rules that hold for every history of a study, and a list of those that do not.

It counts plainly, from the papers and the documentation, and uses no code of the schedulers: else it could not find
their faults. It is the same after a simulation and after a study in a cluster.
"""

from history.lives import brackets, numbers, orders, parallelism, rungs, states
from history.pods import attempts, faults, reports, said, saved, time
from history.promotions import promotions
from history.records import Accepted, Held, History, Pod, Rule, Sent, Violation, Write, named
from history.standing import metrics, standing
from history.stopping import stopping
from history.store import decided, leading, prefix, quiet, versions

__all__ = [
    "Accepted",
    "Held",
    "History",
    "Pod",
    "Rule",
    "Sent",
    "Violation",
    "Write",
    "assert_sound",
    "check",
    "named",
]

LIVES = (orders, rungs, brackets, states, numbers)
OF_PODS = (attempts, reports, saved, said, time, faults)
OF_THE_STORE = (versions, prefix, decided, quiet, leading)
RULES = (parallelism, promotions, stopping, *OF_PODS, *OF_THE_STORE, standing, metrics)  # rest on those above


def check(history: History) -> list[Violation]:
    """Returns every rule that does not hold; where the trials' lives make no sense, nothing that rests on them."""
    broken = [violation for rule in LIVES for violation in rule(history)]
    return broken or [violation for rule in RULES for violation in rule(history)]


def assert_sound(history: History) -> None:
    """Raises AssertionError with every rule that does not hold."""
    assert not (broken := check(history)), "\n".join(map(str, broken))

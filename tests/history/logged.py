"""Who reported what, as the operator's log has it.

The uid is that of the Pod whose token it was, or whose last words: no Trial tells it.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

RESULT = re.compile(r"(?:^| )(\S+)/(\S+): Pod (\S*) reported \S+ at step (\d+), received at (\S+)$")


class Heard(NamedTuple):
    """A report that an operator took for a trial's result: what it knew of it then."""

    namespace: str
    trial: str
    uid: str
    step: int
    at: float


def heard(log: Iterable[str]) -> list[Heard]:
    """Returns every result that operators say they heard of, in order."""
    found = (RESULT.search(line.rstrip("\n")) for line in log)
    return [
        Heard(namespace, trial, uid, int(step), datetime.fromisoformat(at).timestamp())
        for namespace, trial, uid, step, at in (match.groups() for match in found if match)
    ]

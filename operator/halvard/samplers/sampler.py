"""What a sampler is: from what is known of a study's trials to the parameters of its next one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from halvard.study import Value
from halvard.tried import Tried

NEW = "new trial"


@dataclass(frozen=True, slots=True)
class Proposal:
    """The active parameters of a new trial, and how they were found, for people.

    `sampler_failed`: they are random for that reason.
    """

    parameters: Mapping[str, Value]
    why: str = NEW
    sampler_failed: bool = False


class Sampler(Protocol):
    """Picks parameters as a pure function of the study, the trial's index, and what is known of the other trials."""

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal | None:
        """Returns what trial `index` is to try, or None where the search space is exhausted.

        The order of `tried` does not matter.
        """

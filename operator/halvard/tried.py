"""What is known of one trial to whoever learns from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from halvard.study import Value


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial: its results by budget, in the user's own sign and None where not finite; pending while it has none.

    `failed`: nothing more will come of it, because it failed or was stopped. `seconds` and `orders` go with the
    results: what the leg took (0 where nobody knows), and the result's place among all of the study.
    """

    parameters: Mapping[str, Value]
    results: Mapping[int, float | None]
    failed: bool
    seconds: Mapping[int, float] = field(default_factory=dict)
    orders: Mapping[int, int] = field(default_factory=dict)

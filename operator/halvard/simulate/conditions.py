"""Under which conditions a simulated study runs: workers, start-up, and everything that goes wrong."""

import math
from dataclasses import dataclass

AWAY = 340.0  # seconds until Kubernetes gives a silent node up, see docs/decisions/0012


@dataclass(frozen=True, slots=True)
class Conditions:
    """`workers` places, each for one attempt at a time; all that is random is drawn from `seed`.

    `start_up`: seconds from a place to the first step, in every Pod. `stragglers`: the sigma of the lognormal factor
    on a leg's duration (its median is 1). `dropped`: the probability of a leg to be lost at some moment, and to run
    again. `lost_every`: the mean seconds a worker lasts; a lost one takes its leg along, is noticed and replaced after
    `away` seconds. `checkpoints`: after every step; without, a leg in a new Pod starts over. `hot`: a trial promoted at
    its report goes on in its Pod; without, it always gets a new one.
    """

    workers: int
    start_up: float = 0.0
    stragglers: float = 0.0
    dropped: float = 0.0
    lost_every: float = math.inf
    away: float = AWAY
    checkpoints: bool = True
    hot: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field, where a value makes no sense."""
        for name, good, right in (
            ("workers", self.workers >= 1, "at least 1"),
            ("start_up", 0 <= self.start_up < math.inf, "at least 0 seconds"),
            ("stragglers", 0 <= self.stragglers < math.inf, "at least 0"),
            ("dropped", 0 <= self.dropped < 1, "at least 0 and below 1"),
            ("lost_every", self.lost_every > 0, "more than 0 seconds"),
            ("away", 0 <= self.away < math.inf, "at least 0 seconds"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not good:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {right}")

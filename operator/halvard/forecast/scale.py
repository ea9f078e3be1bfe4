"""From scores back to the user's values, and what is said in them of a trial's end, for people."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.normal import log_cdf

INTERVAL = 1.645  # deviations, for 90 %

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """The scores (m,) of the different finite values (m,), the best first; `sign` makes the user's values of them."""

    scores: Array
    values: Array
    sign: int

    def value(self, score: float) -> float:
        """Returns the user's value that has this score; beyond all results, the best or the worst of them."""
        return self.sign * float(np.interp(score, self.scores, self.values))

    def said(self, score: float) -> str:
        """Returns the value for people: beyond all results, nobody knows how much better or worse it is."""
        beyond = " or better" if score < self.scores[0] else " or worse" if score > self.scores[-1] else ""
        return f"{self.value(score):.4g}{beyond}"

    def sentence(self, mean: float, deviation: float, to_beat: float) -> str:
        """Returns what is to be expected of a final score, normal with this mean and deviation, which is not 0."""
        best, worst = (self.said(mean + side * INTERVAL * deviation) for side in (-1, 1))
        interval = best if best == worst else f"{best} to {worst}"
        to_beat = float(np.clip(to_beat, self.scores[0], self.scores[-1]))  # what is named is a value there has been
        chance = math.exp(float(log_cdf(np.array((to_beat - mean) / deviation))))
        return f"final value expected {self.said(mean)} (90 %: {interval}), {chance:.1%} to beat {self.said(to_beat)}"

"""What is to be expected of each trial and of each point of the space, in the end and for its cost.

Our own, from known parts: a scale on which the results of all rungs compare, the curve model, and a Gaussian process of
the final scores in which a trial that has trained little is a noisy observation (docs/decisions/0015).
"""

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.cost import Cost
from halvard.forecast.curves import final_scores
from halvard.forecast.normal import log_cdf, log_expected_improvement, normal_scale
from halvard.forecast.process import Prior, Process, fit
from halvard.forecast.records import Known, latest_levels
from halvard.forecast.scale import Scale

MOST = 200  # trials that the process learns from
MOST_PENDING = 100
CONTENDERS = 50  # of each rung, for which it is asked
COST_EXPONENT = 0.7
BEST_SHARE = 0.01  # what is to be beaten is what the best of this share are expected to reach
LEAST_DEVIATION = 1e-6

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


class Forecast:
    """Scores are normal scores of ranks among all results of all rungs, the lower the better.

    There is a row for each of `trials` (n,), all that have a result or failed: `mean` and `deviation` (n,) of its final
    score; `rate` (n,), seconds for a unit of budget, and `legs` (n, rungs), what its leg to a rung took or will take,
    in units of budget where too little was measured; `chance` (n,), the logarithm of the probability to end better than
    `to_beat`; `came` and `finite` (n, rungs), where it has a result. `scale` leads from scores to values. `start` is
    the seconds that a Pod takes before it trains, 0 where too little was measured. `skill` is the correlation of what
    the parameters alone let expect of trials with what became of them; from 0 down they are of no help, and left out.
    """

    def __init__(self, known: Known, budgets: tuple[int, ...], sign: int, prior: Prior) -> None:
        """Takes what is known, with at least one finite result, the rungs, and the hyperparameters."""
        self._prior = prior
        self.trials, self.points, self.failed = known.trials, known.points, known.failed
        self.came, self.finite = ~np.isnan(known.values), np.isfinite(known.values)
        self.results = int(self.came.sum())
        self._known = known
        own, noise, (scores, values) = outlook(known)
        self.scale = Scale(scores, values, sign)
        self._cost = Cost(known.seconds, self.came, budgets, prior.choices, known.points)
        self.rate, self.legs = self._cost.of_trials(known.points)
        self.start = self._cost.start
        ranked = np.argsort(own, kind="stable")
        rows = chosen(ranked)
        self._training = known.points[rows], own[rows], noise[rows]
        self._process = Process(prior, *self._training)
        left_out, spread = self._process.leave_one_out()
        self.skill = skill(own[rows], left_out, noise[rows])
        self.mean, variance = own, noise
        if self.skill > 0:
            believed, unsure = np.full(len(own), prior.mean), np.full(len(own), prior.signal)
            leading = contenders(ranked, latest_levels(known.values))
            believed[leading], unsure[leading] = self._process.predict(known.points[leading])
            believed[rows], unsure[rows] = left_out, spread
            self.mean, variance = combined(own, noise, believed, unsure + prior.nugget)
        self.deviation = np.sqrt(variance)
        self.to_beat = self._to_beat()
        self.chance = log_cdf((self.to_beat - self.mean) / np.maximum(self.deviation, LEAST_DEVIATION))
        self._promises: dict[tuple[int, int | None], Array] = {}

    def row(self, trial: int) -> int:
        """Returns the row of a trial that has a result."""
        return int(np.searchsorted(self.trials, trial))

    def _to_beat(self) -> float:
        expected = self.mean[~self.failed]
        few = math.ceil(BEST_SHARE * len(expected))
        best = float(np.partition(expected, few - 1)[:few].mean())
        return min(best, float(self.mean[self.finite[:, -1] & ~self.failed].min(initial=math.inf)))

    def promise(self, units: int, running: int | None) -> Array:
        """Returns for each row how much a leg of so many units promises: its chance, less what the cost takes off (n,).

        All pay the start of a Pod for it, but for the trial `running`, whose Pod is there.
        """
        if (units, running) not in self._promises:  # one decision asks several times
            cost = self.rate + self.start / units
            if running is not None:
                row = self.row(running)
                cost[row] = self.rate[row]
            self._promises[units, running] = self.chance - COST_EXPONENT * np.log(cost)
        return self._promises[units, running]

    def ahead(self, points: Array, pending: Array) -> Array:
        """Returns what new trials at points (m, d) promise, while those at others (p, d) have no result yet (m,).

        That is the logarithm of the expected improvement on `to_beat`, less what the cost takes off: by the probability
        alone they would all go next to the best, as it is nearly certain there that something is gained.
        Those are believed to come out as expected: what is to be gained there is gained already.
        """
        at, targets, noise = self._training
        process, to_beat = self._process, self.to_beat
        if len(pending):
            pending = pending[-MOST_PENDING:]
            expected, _ = process.predict(pending)
            to_beat = min(to_beat, float(expected.min()))
            usual = np.full(len(pending), np.median(noise))
            process = Process(
                self._prior, np.vstack([at, pending]), np.append(targets, expected), np.append(noise, usual)
            )
        mean, variance = process.predict(points)
        deviation = np.maximum(np.sqrt(variance), LEAST_DEVIATION)
        gain = log_expected_improvement((to_beat - mean) / deviation) + np.log(deviation)
        return gain - COST_EXPONENT * np.log(self._cost.predict(points))

    def spent(self, level: int) -> float:
        """Returns what all legs to this rung took that have a result, in the unit of `legs`."""
        return float(self.legs[self.came[:, level], level].sum())

    def sentence(self, trial: int) -> str:
        """Returns what is expected of a trial by its own curve, for people.

        The process, which decides too, is too sure for that: it takes curves for independent that err together while
        few trials have trained in full, and those that go on are the ones of which it thinks well, or too well.
        """
        row = self.row(trial)
        own, noise = self._alone
        disagreement = self.mean[row] - own[row]
        deviation = max(math.sqrt(noise[row] + disagreement**2), LEAST_DEVIATION)
        cost = f", {self.rate[row]:.3g} s per unit" if self._cost.known else ""
        return f"{self.scale.sentence(own[row], deviation, self.to_beat)}{cost}"

    @cached_property
    def _alone(self) -> tuple[Array, Array]:
        """Mean and variance (n,) of each trial's final score by its own results, as people are told them."""
        own, noise, _ = outlook(self._known, alone=True)
        return own, noise


def outlook(known: Known, *, alone: bool = False) -> tuple[Array, Array, tuple[Array, Array]]:
    """Returns mean and variance (n,) of each trial's final score by its own results alone, and scores with values."""
    came = ~np.isnan(known.values)
    reported = np.append(known.values[came], np.full(int(known.failed.sum()), math.inf))
    values, scale, place = normal_scale(reported)
    scores = np.full(came.shape, np.nan)
    scores[came] = scale[place[: int(came.sum())]]
    mean, variance = final_scores(scores, alone=alone)
    hopeless = known.failed | np.isinf(known.values).any(axis=1)
    mean[hopeless], variance[hopeless] = scale[-1], 0.0
    finite = np.isfinite(values)
    return mean, variance, (scale[finite], values[finite])


def chosen(ranked: Rows) -> Rows:
    """Returns the rows the process learns from: the best half of them, and the others evenly over all the rest."""
    if len(ranked) <= MOST:
        return ranked
    best, rest = ranked[: MOST // 2], ranked[MOST // 2 :]
    return np.append(best, rest[np.linspace(0, len(rest) - 1, MOST - MOST // 2).round().astype(int)])


def contenders(ranked: Rows, levels: Rows) -> Rows:
    """Returns the first few of those that are at each level now."""
    at = levels[ranked]
    return np.concatenate([ranked[at == level][:CONTENDERS] for level in np.unique(at)])


def combined(own: Array, noise: Array, believed: Array, unsure: Array) -> tuple[Array, Array]:
    """Returns mean and variance (n,) of what two independent sources say, weighted by their precision."""
    weight = unsure / np.maximum(unsure + noise, LEAST_DEVIATION**2)
    return weight * own + (1 - weight) * believed, weight * noise


def skill(targets: Array, left_out: Array, noise: Array) -> float:
    """Returns the correlation of targets with what the process expects of them unseen, noisy ones counting less."""
    weight = 1 / (noise + noise.mean() + LEAST_DEVIATION)
    one, other = (each - float(weight @ each / weight.sum()) for each in (targets, left_out))
    scale = math.sqrt(float(weight @ one**2) * float(weight @ other**2))
    return float(weight @ (one * other)) / scale if scale > 0 else 0.0


def fit_prior(known: Known, choices: tuple[int, ...], rng: np.random.Generator) -> Prior:
    """Returns the hyperparameters that suit what is known best."""
    own, noise, _ = outlook(known)
    rows = chosen(np.argsort(own, kind="stable"))
    return fit(known.points[rows], own[rows], noise[rows], choices, rng)

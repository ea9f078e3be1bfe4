"""What is to be expected of each trial and of each point of the space, in the end and for its cost.

Our own, from known parts: a scale on which the results of all rungs compare, the curve model, and a Gaussian process of
the final scores in which a trial that has trained little is a noisy observation (docs/decisions/0015).
"""

import math

import numpy as np
from numpy.typing import NDArray

from halvard.forecast.cost import Cost
from halvard.forecast.curves import final_scores
from halvard.forecast.normal import log_cdf, normal_scores
from halvard.forecast.process import Prior, Process, features, fit
from halvard.forecast.records import Records

MOST = 200  # trials that the process learns from
MOST_PENDING = 100
CONTENDERS = 200  # of each rung, for which it is asked
COST_EXPONENT = 0.7
BEST_SHARE = 0.01  # what is to be beaten is what the best of this share are expected to reach
TREND = True
LEAST_DEVIATION = 1e-6
INTERVAL = 1.645  # deviations, for 90 %

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


class Forecast:
    """Scores are normal scores of ranks among all results of all rungs, the lower the better, as Phi is the rank.

    `mean` and `deviation` (n,) are of each trial's final score, NaN before its first result; `rate` (n,) is seconds for
    a unit of budget, 1 where too little was measured; `promise` (n,) is the logarithm of the probability to end better
    than `to_beat`, less what the cost takes off.
    """

    def __init__(self, records: Records, prior: Prior) -> None:
        """Takes what is known, with at least one finite result, and the hyperparameters."""
        self._prior = prior
        self._features = features(prior.choices, records.points) - 0.5
        own, noise, self._scale = outlook(records.values, records.failed, self._features)
        self._cost = Cost(records.seconds, records.budgets, self._features)
        self.rate = self._cost.of_trials(self._features)
        self.legs = self._cost.of_legs(self.rate)
        self._sign = records.sign
        self._came = ~np.isnan(records.values)
        self._learn(records, own, noise)

    def _learn(self, records: Records, own: Array, noise: Array) -> None:
        rows = chosen(own)
        points = records.points
        self._training = points[rows], own[rows], noise[rows]
        self._process = Process(self._prior, *self._training)
        left_out, spread = self._process.leave_one_out()
        self.skill = skill(own[rows], left_out, noise[rows], self._prior)
        if self.skill <= 0:
            self.mean, variance = own, noise
        else:
            believed = np.full(len(own), self._prior.mean)
            unsure = np.full(len(own), self._prior.signal)
            others = contenders(own, records.values, rows)
            believed[others], unsure[others] = self._process.predict(points[others])
            believed[rows], unsure[rows] = left_out, spread
            self.mean, variance = combined(own, noise, believed, unsure + self._prior.nugget)
        self.deviation = np.sqrt(variance)
        self.to_beat = self._to_beat(records)
        self.promise = self._promise(self.mean, self.deviation, self.rate)

    def _to_beat(self, records: Records) -> float:
        expected = np.sort(self.mean[~np.isnan(self.mean) & ~records.failed])
        if not len(expected):
            return 0.0
        best = float(expected[: math.ceil(BEST_SHARE * len(expected))].mean())
        finished = self.mean[np.isfinite(records.values[:, -1]) & ~records.failed]
        return min(best, float(finished.min(initial=math.inf)))

    def _promise(self, mean: Array, deviation: Array, rate: Array) -> Array:
        z = (self.to_beat - mean) / np.maximum(deviation, LEAST_DEVIATION)
        promise: Array = log_cdf(z) - COST_EXPONENT * np.log(rate)
        return promise

    def ahead(self, points: Array, pending: Array) -> Array:
        """Returns the promise (m,) of new trials at points (m, d), while those at others (p, d) have no result yet.

        Those are believed to come out as expected, so they change nothing but how sure one is around them.
        """
        at, targets, noise = self._training
        process = self._process
        if len(pending):
            pending = pending[-MOST_PENDING:]
            expected, _ = process.predict(pending)
            usual = np.full(len(pending), np.median(noise))
            process = Process(
                self._prior, np.vstack([at, pending]), np.append(targets, expected), np.append(noise, usual)
            )
        mean, variance = process.predict(points)
        rate = self._cost.predict(features(self._prior.choices, points) - 0.5)
        return self._promise(mean, np.sqrt(variance + self._prior.nugget), rate)

    def spent(self, level: int) -> float:
        """Returns what all legs to this rung took that have a result, in the unit of `legs`."""
        return float(self.legs[self._came[:, level], level].sum())

    def value(self, score: float) -> float:
        """Returns the user's value that has this score; beyond all results, the best or the worst of them."""
        scores, values = self._scale
        return self._sign * float(np.interp(score, scores, values))

    def sentence(self, index: int) -> str:
        """Returns what is expected of a trial, for people."""
        mean, spread = float(self.mean[index]), INTERVAL * float(self.deviation[index])
        expected, low, high = (self.value(score) for score in (mean, mean - spread, mean + spread))
        z = (self.to_beat - mean) / max(float(self.deviation[index]), LEAST_DEVIATION)
        chance = math.exp(float(log_cdf(np.array(z))))
        cost = f", {self.rate[index]:.3g} s per unit" if self._cost.known else ""
        return (
            f"final value expected {expected:.4g} (90 %: {low:.4g} to {high:.4g}), "
            f"{chance:.1%} to beat {self.value(self.to_beat):.4g}{cost}"
        )


def outlook(values: Array, failed: NDArray[np.bool_], at: Array) -> tuple[Array, Array, tuple[Array, Array]]:
    """Returns mean and variance (n,) of each trial's final score by its own results alone, and scores with values."""
    known = ~np.isnan(values)
    reported = values[known]
    all_scores = normal_scores(np.append(reported, np.full(int(failed.sum()), math.inf)))
    scores = np.full(values.shape, np.nan)
    scores[known] = all_scores[: len(reported)]
    mean, variance = final_scores(scores, at)
    hopeless = failed | np.isinf(values).any(axis=1)
    mean[hopeless], variance[hopeless] = float(all_scores.max()), 0.0
    finite = np.isfinite(reported)
    order = np.argsort(reported[finite], kind="stable")
    return mean, variance, (all_scores[: len(reported)][finite][order], reported[finite][order])


def chosen(own: Array) -> Rows:
    """Returns the rows the process learns from: the best half of them, and the others evenly over all the rest."""
    known = np.flatnonzero(~np.isnan(own))
    ranked = known[np.argsort(own[known], kind="stable")]
    if len(ranked) <= MOST:
        return ranked
    best, rest = ranked[: MOST // 2], ranked[MOST // 2 :]
    return np.append(best, rest[np.linspace(0, len(rest) - 1, MOST - MOST // 2).round().astype(int)])


def contenders(own: Array, values: Array, asked: Rows) -> Rows:
    """Returns the rows of those that are at each rung now, and the best there, without those that are asked anyway."""
    latest = values.shape[1] - np.argmax(~np.isnan(values[:, ::-1]), axis=1)
    rest = ~np.isnan(own) & np.isfinite(np.where(np.isnan(values), 0, values)).all(axis=1)
    rest[asked] = False
    found = []
    for level in range(1, values.shape[1] + 1):
        rows = np.flatnonzero(rest & (latest == level))
        found.append(rows[np.argsort(own[rows], kind="stable")[:CONTENDERS]])
    return np.concatenate(found)


def combined(own: Array, noise: Array, believed: Array, unsure: Array) -> tuple[Array, Array]:
    """Returns mean and variance (n,) of what two independent sources say, weighted by their precision."""
    weight = unsure / np.maximum(unsure + noise, LEAST_DEVIATION**2)
    return weight * own + (1 - weight) * believed, weight * noise


def skill(targets: Array, left_out: Array, noise: Array, prior: Prior) -> float:
    """Returns the share of the targets' variation that the process explains of trials it was not shown."""
    weight = 1 / (noise + prior.nugget + 0.1 * prior.signal)
    mean = float(weight @ targets / weight.sum())
    missed, varied = weight @ (targets - left_out) ** 2, weight @ (targets - mean) ** 2
    return float(1 - missed / varied) if varied > 0 else 0.0


def fit_prior(records: Records, results: int, choices: tuple[int, ...], rng: np.random.Generator) -> Prior:
    """Returns the hyperparameters that suit the first so many results best."""
    values = records.first(results)
    at = features(choices, records.points) - 0.5
    own, noise, _ = outlook(values, np.zeros(len(values), bool), at)
    rows = chosen(own)
    return fit(records.points[rows], own[rows], noise[rows], choices, rng, trend=TREND)

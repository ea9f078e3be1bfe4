"""What the results say about early stopping: whether early ones foretell later ones (docs/decisions/0018). Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np

from halvard.kendall import Floats, Tau, kendall, unselected
from halvard.study import StudySpec
from halvard.study_status import Agreement, RankAgreement
from halvard.trial import RungResult, Trial

FEWEST = 10  # trials in common, below which tau says nothing
MOST = 300  # trials compared: the cost is quadratic
ENOUGH = 30  # trials in common for an alarm
FORETELLS = 2 / 3  # the tau below which too much changes: one pair in six does
ENOUGH_CONTROLS = 5
TOO_GOOD = 4  # one control in so many may beat the median of those that were due; one in two is no use at all

MISLEAD = "EarlyResultsMislead"
CATCH_UP = "ControlsCatchUp"
FORETELL = "EarlyResultsForetell"

Values = Mapping[int, float]


@dataclass(slots=True)
class Level:
    """The results of one rung; less is better, infinity is not finite.

    `finite`: by trial; `entered`: those of them that nobody had selected before; `controls` and `merit`: of those that
    came from the rung below because they were drawn, and because they were due.
    """

    finite: dict[int, float] = field(default_factory=dict)
    entered: dict[int, float] = field(default_factory=dict)
    controls: list[float] = field(default_factory=list)
    merit: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why early results seem to mislead, for people; `proven`: it is no chance (at 5 %)."""

    proven: bool
    reason: str
    why: str


class Diagnosis:
    """A study's results by rung, and what they say."""

    def __init__(self, spec: StudySpec, budgets: Sequence[int], trials: Iterable[Trial]) -> None:
        """`budgets`: those of the rungs, the lowest first."""
        self._spec, self._budgets = spec, budgets
        self._grace = spec.scheduler.asha.grace if spec.scheduler.asha else 1
        self._levels = {budget: Level() for budget in budgets}
        sign = spec.objective.sign
        for trial in trials:
            self._add(trial.index, sign, trial.status.rungs)

    def _add(self, index: int, sign: int, results: Sequence[RungResult]) -> None:
        below = 0
        for result in results:
            level, value = self._levels[result.budget], result.value
            selected = below >= self._grace
            if value is not None:
                level.finite[index] = sign * value
                if not selected:
                    level.entered[index] = sign * value
            if selected:
                others = level.controls if result.control else level.merit
                others.append(math.inf if value is None else sign * value)
            below = result.budget

    def agreement(self, budget: int) -> tuple[Agreement, ...]:
        """Returns how a rung agrees with the next one, and with the highest that has enough trials in common."""
        here = self._levels[budget].finite
        above = [higher for higher in self._budgets if higher > budget]
        enough = (b for b in reversed(above) if len(here.keys() & self._levels[b].finite.keys()) >= FEWEST)
        top = next(enough, None)
        if top is None:
            return ()
        compared = (compare(b, here, self._levels[b].finite) for b in sorted({above[0], top}))
        return tuple(agreement for agreement in compared if agreement is not None)

    def alarm(self, *, raised: bool) -> tuple[str, str] | None:
        """Returns why early results mislead, in a word and in sentences, at the lowest rung where they do, else None.

        It takes proof to raise the alarm; one that is `raised` lasts as long as there is any suspicion. So it does not
        come and go.
        """
        suspicions = (
            suspicion
            for low, high in pairwise(self._budgets)
            if low >= self._grace
            for suspicion in (self._disorder(low, high), self._late_bloomers(low, high))
        )
        alarms = (each for each in suspicions if each is not None and (each.proven or raised))
        return next(((alarm.reason, alarm.why) for alarm in alarms), None)

    def _disorder(self, low: int, high: int) -> Suspicion | None:
        """Whether too much of the order at a rung changes until the next, judged by trials not selected before.

        Those that were are all much alike: their order is mostly noise, however much early results are worth.
        """
        entered, above = self._levels[low].entered, self._levels[high].finite
        common = entered.keys() & above.keys()
        tau = everyones(common, entered, above) if len(common) >= ENOUGH else None
        if tau is None or tau.value >= FORETELLS:
            return None
        kept, least, most, right = (f"{(1 + value) / 2:.0%}" for value in (*tau, FORETELLS))
        why = (
            f"of two trials, the better one at budget {low} is still the better one at budget {high} in {kept} of "
            f"cases ({least} to {most}, from {len(common)} trials); below {right}, early stopping loses good trials "
            f"that begin slowly. {self._advice(high)}"
        )
        return Suspicion(tau.high < FORETELLS, MISLEAD, why)

    def _late_bloomers(self, low: int, high: int) -> Suspicion | None:
        """Whether controls do nearly as well at a rung as those that were due at the rung below."""
        controls, merit = self._levels[high].controls, self._levels[high].merit
        if len(controls) < ENOUGH_CONTROLS or len(merit) < ENOUGH_CONTROLS:
            return None
        limit = median(merit)
        better = sum(value < limit for value in controls)
        if better * TOO_GOOD <= len(controls):
            return None
        why = (
            f"{better} of {len(controls)} control trials, drawn at random from those not due at budget {low}, beat the "
            f"median of those that were due at budget {high}; it would be half of them if early results were worth "
            f"nothing. {self._advice(high)}"
        )
        return Suspicion(by_chance(better, len(controls)) <= 0.05, CATCH_UP, why)  # noqa: PLR2004  # 5 %

    def _advice(self, budget: int) -> str:
        ladder = f"minBudget {budget} or more" if budget < self._budgets[-1] else "the scheduler none"
        also = f", grace {budget} or more brackets" if self._spec.scheduler.asha else ""
        return f"For the next study: {ladder}, a lower reductionFactor{also}"


def compare(budget: int, here: Values, there: Values) -> Agreement | None:
    """Returns how a rung agrees with the one at `budget`; None where too few trials are in common, or all equal."""
    common = here.keys() & there.keys()
    if len(common) < FEWEST:
        return None
    first, second = paired(common, here, there)
    tau = kendall(first, second)
    if tau is None:
        return None
    half = np.argsort(second, kind="stable")[: len(second) // 2]
    among = kendall(first[half], second[half]) if len(half) >= FEWEST else None
    better = RankAgreement(trials=len(common) // 2, **rounded(among)) if among else None
    return Agreement(budget=budget, trials=len(common), **rounded(tau), better=better)


def rounded(tau: Tau) -> dict[str, float]:
    """Returns the three figures as the status has them."""
    return {"tau": round(tau.value, 3), "low": round(tau.low, 3), "high": round(tau.high, 3)}


def everyones(common: AbstractSet[int], entered: Values, above: Values) -> Tau | None:
    """Returns tau over all trials that entered a rung, from those in common with the rung above; None if all equal."""
    first, second = paired(common, entered, above)
    tau = kendall(first, second)
    return unselected(tau, np.array(list(entered.values())), first) if tau else None


def paired(common: AbstractSet[int], here: Values, there: Values) -> tuple[Floats, Floats]:
    """Returns two values of each trial in common; of too many trials a sample, which hardly changes as they grow."""
    indices = np.sort(np.fromiter(common, np.uint32, len(common)))
    if len(indices) > MOST:
        scattered = indices * np.uint32(2654435761)  # Fibonacci hashing (Knuth, TAOCP 3, section 6.4)
        indices = indices[np.argpartition(scattered, MOST)[:MOST]]
    picked = indices.tolist()
    return np.array([here[index] for index in picked]), np.array([there[index] for index in picked])


def by_chance(better: int, count: int) -> float:
    """Returns how likely so many controls or more are better where 1 in TOO_GOOD is (binomial, exact)."""
    ways: int = sum(math.comb(count, k) * (TOO_GOOD - 1) ** (count - k) for k in range(better, count + 1))
    return ways / int(TOO_GOOD**count)

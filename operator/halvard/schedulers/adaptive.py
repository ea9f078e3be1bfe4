"""`adaptive`: ASHA's ladder, on which those go on that promise most for what they cost, not those that lead by now.

Asynchronous as ASHA (Li et al., MLSys 2020): the rungs are scanned from the top down, no worker waits. Our own is who
goes on (docs/decisions/0015), by the forecast of `halvard.forecast`: of each rung the trial with the most promise, if

* it is among the best 1/eta of all trials of the rung, those that have gone on included, and
* what the trials on the rung above took and will take, itself included, is at most RHO times what this rung took.

A trial that has just reported is still in its Pod, and to go on at once spares it the start of another: it is held for
cheaper than the others, and goes on without further ado where training to the next rung takes less than that start.
Counting places alone, as ASHA does, fails with a forecast: those that went on learn bad news and lose their places, so
all others look better for ever.
"""

import numpy as np
from typing_extensions import override

from halvard import scheduler_spec
from halvard.forecast.forecast import Array, Forecast
from halvard.forecast.forecaster import Forecaster
from halvard.schedulers.rung import Rung, Standing
from halvard.schedulers.scheduler import Halving, Promotion, Start, no_rung
from halvard.study import Goal
from halvard.trial import Trial

RHO = 1.5
FEWEST = 2  # results at a rung from which one may go on


class Adaptive(Halving):
    """Decides as ASHA does while there is no forecast, and says so."""

    def __init__(self, adaptive: scheduler_spec.Adaptive, goal: Goal, forecaster: Forecaster) -> None:
        """Raises ValueError where the budgets make no ladder."""
        super().__init__(adaptive.budgets)
        self._eta = adaptive.reduction_factor
        self._forecaster = forecaster
        self._levels = {budget: level for level, budget in enumerate(self.budgets)}
        self._rungs = [Rung(budget, goal) for budget in self.budgets]
        self._gone: list[set[int]] = [set() for _ in self.budgets]  # promoted or withdrawn: they do not wait any more
        self._reached = np.zeros(0, np.intp)  # by trial: the level it has trained for, or does
        self._latest = 0  # the order of the last that happened to stored trials
        self._running: int | None = None  # the trial that reported last, if nothing has happened since

    @override
    def fold(self, trial: Trial) -> None:
        """Takes in a stored trial."""
        if trial.spec.budget not in self._levels:
            raise no_rung(trial.index, trial.spec.budget, self.budgets)
        for level in range(self._levels[trial.spec.budget]):
            self._gone[level].add(trial.index)
        self._reach(trial.index, self._levels[trial.spec.budget])
        reported = max((result.order for result in trial.status.rungs), default=0)
        latest = max(reported, trial.spec.order, trial.status.order)
        if latest > self._latest:
            self._latest, self._running = latest, trial.index if latest == reported else None
        running = self._running
        super().fold(trial)
        self._running = running  # a stored trial was withdrawn when it was, and not just now

    def start(self, index: int) -> Start:
        """Returns the lowest rung."""
        self._running = None
        self._reach(index, 0)
        return Start(0, self.budgets[0])

    @override
    def record(self, index: int, budget: int, value: float | None) -> None:
        """Takes in one result; raises ValueError where `budget` is no rung or the trial has a result there."""
        super().record(index, budget, value)
        self._running = index

    @override
    def withdraw(self, index: int) -> None:
        """Never promotes this trial again; its results stay in their rungs."""
        super().withdraw(index)
        self._running = None
        for gone in self._gone:
            gone.add(index)

    def promote(self) -> Promotion | None:
        """Returns the first promotion that is due, scanning the rungs from the top down, and holds it for done."""
        forecast = self._forecast()
        for level in reversed(range(len(self.budgets) - 1)):
            index = self._first(level, forecast)
            if index is not None and not self._hurdle(index, level, forecast):
                why = f"promoted: {self._sentence(index, level, forecast)}"
                self._gone[level].add(index)
                self._reach(index, level + 1)
                self._running = None
                return Promotion(index, self.budgets[level + 1], why)
        return None

    @override
    def explain(self, index: int, budget: int) -> str:
        """Returns the standing of a result as a sentence, with what is expected and what it waits for."""
        forecast = self._forecast()
        level = self._level(index, budget)
        sentence = self._sentence(index, level, forecast)
        if isinstance(forecast, str) or level == len(self.budgets) - 1 or index in self._gone[level]:
            return sentence
        return f"{sentence}; {self._hurdle(index, level, forecast) or 'it is due to go on'}"

    @override
    def standing(self, index: int, budget: int) -> Standing:
        """Returns where ASHA would have the trial's result at this rung; raises KeyError where there is none."""
        rung = self.rung(index, budget)
        top = budget == self.max_budget
        return rung.standing(index, 0 if top else rung.completed // self._eta, top=top)

    @override
    def rung(self, index: int, budget: int) -> Rung:
        """Returns the rung at this budget; raises ValueError where there is none."""
        return self._rungs[self._level(index, budget)]

    def _forecast(self) -> Forecast | str:
        """What is to be expected of each trial, or why nothing can be said, for people."""
        try:
            return self._forecaster.forecast()
        except (ValueError, ArithmeticError) as error:
            return f"the model failed: {error}"

    def _first(self, level: int, forecast: Forecast | str) -> int | None:
        """The first of those that wait at a rung."""
        if isinstance(forecast, str):
            return self._rungs[level].best_waiting(self._gone[level])
        waits = forecast.finite[:, level] & ~forecast.failed & (self._reached[forecast.trials] == level)
        rows = np.flatnonzero(waits)
        waiting = forecast.trials[rows]
        running = self._running
        if running is not None and running in waiting and self._spares_a_start(running, level, forecast):
            return running
        return int(waiting[np.argmax(self._promise(level, forecast)[rows])]) if len(rows) else None

    def _spares_a_start(self, index: int, level: int, forecast: Forecast) -> bool:
        """Whether the trial is still in its Pod, and trains to the next rung before another Pod has started."""
        trains = float(forecast.rate[forecast.row(index)]) * self.budgets[level + 1]
        return index == self._running and trains <= forecast.start

    def _hurdle(self, index: int, level: int, forecast: Forecast | str) -> str:
        """What keeps a trial from going on, for people; empty where nothing does."""
        rung = self._rungs[level]
        if isinstance(forecast, str):
            return "" if rung.place(index) <= rung.completed // self._eta else "it is not among the best"
        if self._spares_a_start(index, level, forecast):
            return ""
        place, completed = self._place(index, level, forecast)
        if completed < FEWEST or (place - 1) * self._eta >= completed:
            return f"only the best 1/{self._eta} may go on"
        above = self._reached[forecast.trials] > level
        took = float(forecast.legs[above, level + 1].sum())
        own, below = float(forecast.legs[forecast.row(index), level + 1]), forecast.spent(level)
        if took + own > RHO * below:
            return (
                f"rung {self.budgets[level + 1]} has its share of the time: {took:.3g} + {own:.3g} of {RHO * below:.3g}"
            )
        return ""

    def _place(self, index: int, level: int, forecast: Forecast) -> tuple[int, int]:
        """The trial's place by promise among all that have a result at a rung, and how many have."""
        promise = self._promise(level, forecast)
        there = promise[forecast.came[:, level]]
        return 1 + int((there > promise[forecast.row(index)]).sum()), len(there)

    def _promise(self, level: int, forecast: Forecast) -> Array:
        """What a leg from a rung to the next promises, for each row of the forecast."""
        return forecast.promise(self.budgets[level + 1] - self.budgets[level], self._running)

    def _sentence(self, index: int, level: int, forecast: Forecast | str) -> str:
        standing = self.standing(index, self.budgets[level])
        if isinstance(forecast, str):
            return f"{standing.sentence()} (as asha: {forecast})"
        if standing.top or standing.value is None:
            return standing.sentence()
        place, completed = self._place(index, level, forecast)
        spares = self._spares_a_start(index, level, forecast)
        why = f"; to train on takes less than the {forecast.start:.3g} s that a Pod takes to start" if spares else ""
        return (
            f"value {standing.value:g} is place {standing.place} of {completed} at rung {standing.budget}; "
            f"{forecast.sentence(index)}{_left_out(forecast)}; by promise it is place {place}{why}"
        )

    def _level(self, index: int, budget: int) -> int:
        if budget not in self._levels:
            raise no_rung(index, budget, self.budgets)
        return self._levels[budget]

    def _reach(self, index: int, level: int) -> None:
        if index >= len(self._reached):
            self._reached = np.append(self._reached, np.zeros(max(64, index + 1), np.intp))
        self._reached[index] = max(self._reached[index], level)


def _left_out(forecast: Forecast) -> str:
    return "" if forecast.skill > 0 else "; parameters left out: they do not tell what becomes of trials"

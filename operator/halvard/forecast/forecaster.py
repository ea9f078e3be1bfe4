"""Keeps what is known of a study's trials, and the forecast that follows from it."""

import numpy as np

from halvard.forecast.forecast import Forecast, fit_prior
from halvard.forecast.process import Prior
from halvard.forecast.records import Array, Records
from halvard.seeded import generator
from halvard.study import StudySpec
from halvard.tried import Tried

FEWEST = 20  # results before there is a forecast
REFIT_EVERY = 20  # results
_FIT = 0x666974  # sets the draws of fits apart from those of parameters


class Forecaster:
    """One for `auto` and `adaptive` together; where neither is used, it costs next to nothing.

    A forecast is a function of what is known and the study's seed. The hyperparameters of its Gaussian process follow
    from the first 20, 40, 60 ... results alone, so they too are the same in a tuner that was rebuilt.
    """

    def __init__(self, spec: StudySpec) -> None:
        """Knows nothing yet."""
        self._spec = spec
        self._choices = tuple(len(parameter.choice or ()) for parameter in spec.parameters)
        self._records: Records | None = None
        self._news: dict[int, Tried] = {}
        self._forecast: Forecast | str | Exception | None = None
        self._prior: tuple[int, Prior] | None = None  # with how many results it was fitted to

    def learn(self, index: int, tried: Tried) -> None:
        """Takes in what is known of a trial now."""
        self._news[index] = tried
        if tried.results or tried.failed:
            self._forecast = None

    def forecast(self) -> Forecast | str:
        """Returns what is to be expected of each trial, or why nothing can be said yet, for people.

        Raises ValueError or ArithmeticError where the model fails.
        """
        if self._forecast is None:
            try:
                self._forecast = self._made(self._told())
            except (ValueError, ArithmeticError) as error:  # those of numpy.linalg are among them
                self._forecast = error
        if isinstance(self._forecast, Exception):
            raise self._forecast.with_traceback(None)
        return self._forecast

    def pending(self) -> Array:
        """Returns the points (p, d) of the trials that have no result yet, in the order of their indices."""
        return self._told().pending()

    def _told(self) -> Records:
        """All that is known by now."""
        if self._records is None:
            self._records = Records(self._spec)
        for index, tried in self._news.items():
            self._records.put(index, tried)
        self._news.clear()
        return self._records

    def _made(self, records: Records) -> Forecast | str:
        known = records.known()
        count = int((~np.isnan(known.values)).sum())
        sound = known.values[~known.failed]
        finite = sound[np.isfinite(sound)]
        if count < FEWEST:
            return f"{count} of {FEWEST} results"
        if not len(finite):
            return "no trial with a finite result is left"
        if finite.min() == finite.max():
            return f"all {len(finite)} finite results are equal"
        then = count // REFIT_EVERY * REFIT_EVERY
        if self._prior is None or self._prior[0] != then:
            rng = generator(self._spec.seed, then, _FIT)
            self._prior = then, fit_prior(known.first(then), self._choices, rng)
        return Forecast(known, records.budgets, records.sign, self._prior[1])

"""A study's decisions made again from its records: what was decided, what came of it, and in which order. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from halvard.study import StudySpec, Value
from halvard.trial import Trial
from halvard.tuner import Leg, Tuner

STOPPED = "stopped: "


class IncompleteError(Exception):
    """Records from which nothing can be replayed; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A leg as it is stored: this trial is to train until `budget` in total."""

    order: int
    index: int
    budget: int
    bracket: int
    control: bool
    why: str
    parameters: Mapping[str, Value]

    @classmethod
    def of(cls, leg: Leg) -> Self:
        """Returns what would be stored of it."""
        return cls(leg.order, leg.index, leg.budget, leg.bracket, leg.control, leg.decision, leg.parameters)


@dataclass(frozen=True, slots=True)
class Result:
    """The trial's result at the budget of its latest leg; `value` is None where it was not finite."""

    order: int
    index: int
    budget: int
    value: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The trial failed or was stopped; `why` is what its status says."""

    order: int
    index: int
    why: str


Happening = Decision | Result | Withdrawal


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay leaves the records, both in words: nothing after it can be compared."""

    order: int
    recorded: str
    now: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it: how many decisions were the same, and the first that was not."""

    decisions: int
    difference: Difference | None


def history(trials: Iterable[Trial]) -> list[Happening]:
    """Returns everything that happened in the study, in order; raises IncompleteError where a part of it is missing."""
    known = list(trials)
    happened = sorted((each for trial in known for each in _of(trial)), key=lambda each: each.order)
    if any(each.order < 1 for each in happened):
        raise IncompleteError("trials without spec.order: they were made before Halvard kept the order of decisions")
    for place, each in enumerate(happened, start=1):
        if each.order > place:
            raise IncompleteError(f"nothing has the order {place}: a trial's record is missing, or not whole")
        if each.order < place:
            other = happened[place - 2]
            raise IncompleteError(f"both {_words(other)} and {_words(each)} have the order {each.order}")
    return happened


def replay(spec: StudySpec, trials: Iterable[Trial]) -> Replay:
    """Plays the records through a new tuner, until a decision differs; raises IncompleteError.

    `limits.trials` may have been lower when the study began trials than it is by now, so it is taken for at least as
    many as there are. Stops of `median` are not decided again: the order of reports is kept of each trial alone.
    """
    known = {trial.index: trial for trial in trials}
    happened = history(known.values())
    tuner = Tuner(_with_room(spec, len(known)))
    decisions = 0
    for each in happened:
        now = _again(tuner, each, known[each.index])
        if now is not None:
            return Replay(decisions, Difference(each.order, _words(each), now))
        decisions += isinstance(each, Decision)
    return Replay(decisions, None)


def _of(trial: Trial) -> Iterator[Happening]:
    spec, status = trial.spec, trial.status
    legs = [(result.decided, result.budget, result.control, result.decision) for result in status.rungs]
    if spec.budget > trial.done:
        legs.append((spec.order, spec.budget, spec.control, spec.decision))
    for order, budget, control, why in legs:
        yield Decision(order, spec.index, budget, spec.bracket, control, why, spec.parameters)
    for result in status.rungs:
        yield Result(result.order, spec.index, result.budget, result.value, result.seconds)
    if status.state in ("Failed", "Stopped"):
        yield Withdrawal(status.order, spec.index, status.message)


def _with_room(spec: StudySpec, trials: int) -> StudySpec:
    limit = spec.limits.trials
    if limit is None or limit >= trials:
        return spec
    return spec.with_trials(trials)


def _again(tuner: Tuner, each: Happening, trial: Trial) -> str | None:
    """Lets it happen again; returns what happens now where that is something else."""
    try:
        match each:
            case Decision():
                leg = tuner.ask()
                return _other(each, Decision.of(leg)) if leg is not None else "nothing is to be decided"
            case Result():
                said = _verdict(tuner, trial)
                answer = tuner.tell(each.index, each.budget, each.value, each.seconds)
                return said or (None if answer.leg_over else f"trial {each.index} still trains: it has a higher budget")
            case Withdrawal():
                said = _verdict(tuner, trial)
                tuner.withdraw(each.index)
                return _other_stop(each.why, said) if tuner.spec.scheduler.patience else None
    except ValueError as error:
        return str(error)


def _verdict(tuner: Tuner, trial: Trial) -> str:
    """What `patience` says to the trial's reports from before its end, where it says to stop."""
    if tuner.spec.scheduler.patience is None:
        return ""
    for point in trial.status.curve:
        if point.step < trial.spec.budget and (answer := tuner.tell(trial.index, point.step, point.value)).stop:
            return f"{STOPPED}{answer.why}"
    return ""


def _other_stop(recorded: str, said: str) -> str | None:
    """What `patience` says now, where it differs."""
    if said == (recorded if recorded.startswith(STOPPED) else ""):
        return None
    return said or "its reports do not say so"


def _other(recorded: Decision, now: Decision) -> str | None:
    """What is decided now, where it differs."""
    if now == recorded:
        return None
    words = _words(now)
    if words != _words(recorded):
        return words
    names = ("order", "bracket", "control", "parameters")
    return f"{words}, with {', '.join(f'{name} {getattr(now, name)}' for name in names)}"


def _words(each: Happening) -> str:
    match each:
        case Decision():
            return f"trial {each.index} is to train until {each.budget}: {each.why}"
        case Result():
            return f"trial {each.index} has the value {each.value} at {each.budget}"
        case Withdrawal():
            return f"trial {each.index} is over: {each.why}"

"""What people are told: one line for each decision and each result (pure)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from halvard.model import Value
from halvard.plan import Action, Announce, SaveSpec, SaveStatus, StartLeg
from halvard.study import Study
from halvard.trial import Trial

_TOLD_BY_THE_TRIAL = ("TrialFailed", "LegRunsAgain")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, to a trial or (with an empty `trial`) to the study."""

    trial: str
    what: str
    text: str


class Narrator:
    """Turns applied actions into lines; it knows what was told of each trial already."""

    def __init__(self, study: Study, trials: Iterable[Trial] = ()) -> None:
        """Take what is in the store for told."""
        self._metric = study.spec.objective.metric
        self._told = {trial.index: trial for trial in trials}

    def lines(self, action: Action) -> list[Line]:
        """Returns what there is to say about an action."""
        match action:
            case SaveStatus(trial):
                before = self._told.get(trial.index)
                self._told[trial.index] = trial
                return [*self._results(before, trial), *_changes(before, trial)]
            case SaveSpec(trial, hot):
                how = "hot" if hot else "to be resumed"
                reason = trial.spec.decision.removeprefix("promoted: ")
                return [Line(trial.name, "promoted", f"{trial.done} → {trial.spec.budget}, {how}: {reason}")]
            case StartLeg(trial):
                return [_start(trial, action)]
            case Announce(_, reason, message) if reason not in _TOLD_BY_THE_TRIAL:
                return [Line("", "study", message)]
        return []

    def _results(self, before: Trial | None, trial: Trial) -> list[Line]:
        known = len(before.status.rungs) if before else 0
        return [
            Line(
                trial.name,
                "result",
                f"{self._metric} {number(result.value)} at budget {result.budget}, after {result.seconds:.1f} s",
            )
            for result in trial.status.rungs[known:]
        ]


def _start(trial: Trial, leg: StartLeg) -> Line:
    if leg.start or trial.done:
        return Line(trial.name, "resumed", f"up to budget {trial.spec.budget} from step {leg.start}")
    return Line(trial.name, "started", f"up to budget {trial.spec.budget}: {configuration(trial.spec.parameters)}")


def _changes(before: Trial | None, trial: Trial) -> list[Line]:
    """Returns what became of its attempt; nothing while the attempt goes on."""
    state, message = trial.status.state, trial.status.message
    if before is not None and (state, trial.attempt) == (before.status.state, before.attempt):
        return []
    if state == "Running":
        return []
    what = "again" if state == "Pending" else state.lower()
    return [Line(trial.name, what, message.removeprefix(f"{what}: "))]


def configuration(parameters: Mapping[str, Value]) -> str:
    """Returns the parameters as `lr=0.0123 optimizer=sgd`."""
    return " ".join(f"{name}={number(value)}" for name, value in parameters.items())


def number(value: Value | None) -> str:
    """Returns a value as people read it: four digits of a real number, `nan` for one that was not finite."""
    if value is None:
        return "nan"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

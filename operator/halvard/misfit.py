"""Stored Trials that a study cannot have decided on, as after a change by hand: nothing is decided on them. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from halvard.study import MOST_TRIALS, Parameter, Study, Value
from halvard.trial import Trial

MOST_SECONDS = 1e12  # thirty years of a thousand GPUs


def misfit(study: Study, trials: Iterable[Trial]) -> str:
    """Returns what is wrong with the first of its trials that makes no sense; empty where all do."""
    scheduler = study.spec.scheduler
    ladders = [scheduler.budgets[b:] for b in range(scheduler.asha.brackets)] if scheduler.asha else []
    parameters = {parameter.name: parameter for parameter in study.spec.parameters}
    for trial in trials:
        bracket = trial.spec.bracket
        budgets = ladders[bracket] if bracket < len(ladders) else scheduler.budgets
        for field, wrong in (*_wrong(study.name, trial, budgets), *_foreign(parameters, trial.spec.parameters)):
            return f"Trial {trial.name}: {field}: {wrong}"
    return ""


def _wrong(study: str, trial: Trial, budgets: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    spec, status = trial.spec, trial.status
    if trial.name != (name := f"{study}-{spec.index:04d}"):
        yield "spec.index", f"{spec.index} is that of {name}"
    if spec.index >= MOST_TRIALS:
        yield "spec.index", f"{spec.index}; has to be less than {MOST_TRIALS}"
    if spec.budget not in budgets:
        yield "spec.budget", f"{spec.budget} is no rung; has to be one of {', '.join(map(str, budgets))}"
    if status.attempt < 1:
        yield "status.attempt", f"{status.attempt}; attempts are numbered from 1"
    spent = {f"status.rungs[{n}]": (result.seconds, result.gpu_seconds) for n, result in enumerate(status.rungs)}
    spent["status.lost"] = (status.lost.seconds, status.lost.gpu_seconds)
    for field, (seconds, gpu_seconds) in spent.items():
        if not (0 <= seconds <= MOST_SECONDS and 0 <= gpu_seconds <= MOST_SECONDS):
            yield field, f"{seconds:g} seconds and {gpu_seconds:g} GPU-seconds; nothing can take that long"
    reached = [result.budget for result in status.rungs]
    if reached != sorted(set(reached)):
        yield "status.rungs", f"budgets {reached} have to ascend"
    elif reached and reached[-1] > spec.budget:
        yield "status.rungs", f"a result at {reached[-1]} is beyond the budget of {spec.budget}"


def _foreign(parameters: Mapping[str, Parameter], values: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    """Parameters and kinds of values that the study does not search."""
    for name, value in values.items():
        parameter = parameters.get(name)
        if parameter is None:
            yield f"spec.parameters.{name}", "the study has no such parameter"
        elif parameter.choice is not None and not parameter.allows(value):
            yield f"spec.parameters.{name}", f"{value!r} is none of the parameter's choices"
        elif parameter.choice is None and (isinstance(value, str | bool) or (parameter.int and value != int(value))):
            yield f"spec.parameters.{name}", f"{value!r} has to be {'a whole' if parameter.int else 'a'} number"

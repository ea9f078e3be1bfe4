"""Search spaces, objectives and whole searches for the tests of samplers."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from halvard import samplers
from halvard.forecast.forecaster import Forecaster
from halvard.samplers import Proposal, Sampler
from halvard.study import StudySpec, Value
from halvard.tried import Tried

Objective = Callable[[Mapping[str, Value]], float]

SQUARE: list[dict[str, Any]] = [{"name": f"x{place}", "float": {"min": 0, "max": 1}} for place in range(4)]
MIXED: list[dict[str, Any]] = [
    {"name": "lr", "float": {"min": 1e-5, "max": 1, "scale": "log"}},
    {"name": "optimizer", "choice": ["sgd", "adamw", "lion", "lamb"]},
    {"name": "momentum", "float": {"min": 0, "max": 1}, "when": {"optimizer": ["sgd"]}},
    {"name": "layers", "int": {"min": 1, "max": 10}},
    {"name": "dropout", "float": {"min": 0.0, "max": 0.5, "step": 0.1}},
]


def study_spec(
    axes: list[dict[str, Any]] = SQUARE,
    sampler: str = "tpe",
    seed: int = 0,
    goal: str = "minimize",
    **options: str,
) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": goal},
            "parameters": axes,
            "sampler": {sampler: options},
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 10},
            "seed": seed,
            "template": {"spec": {"containers": [{"name": "trainer"}]}},
        }
    )


class Told:
    """A sampler with a forecaster, which is told at each question what is tried."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec

    def propose(self, index: int, tried: Mapping[int, Tried]) -> Proposal | None:
        forecaster = Forecaster(self._spec)
        for each in tried:
            forecaster.learn(each, tried[each])
        return samplers.make_sampler(self._spec, forecaster).propose(index, tried)


def make_sampler(spec: StudySpec) -> Sampler:
    """The study's sampler, as a function of what is tried alone."""
    return Told(spec) if spec.sampler.auto else samplers.make_sampler(spec, Forecaster(spec))


def bowl(parameters: Mapping[str, Value]) -> float:
    return sum((float(value) - 0.3) ** 2 for value in parameters.values())


def steep(parameters: Mapping[str, Value]) -> float:
    """A bowl that diverges in a quarter of the space."""
    return math.nan if float(parameters["x0"]) > 0.75 else bowl(parameters)


def network(parameters: Mapping[str, Value]) -> float:
    """Best with sgd, if its momentum is right."""
    loss = (math.log10(float(parameters["lr"])) + 2.5) ** 2 + (float(parameters["layers"]) - 6) ** 2 / 9
    loss += float(parameters["dropout"])
    if parameters["optimizer"] == "sgd":
        return loss + 4 * (float(parameters["momentum"]) - 0.9) ** 2
    return loss + {"adamw": 0.3, "lion": 0.6, "lamb": 1.0}[str(parameters["optimizer"])]


def ask(sampler: Sampler, index: int, tried: Mapping[int, Tried]) -> Proposal:
    proposal = sampler.propose(index, tried)
    assert proposal is not None
    return proposal


def search(spec: StudySpec, objective: Objective, trials: int, pending: int, sign: int = 1) -> list[Proposal]:
    """A study with so many trials at once, whose results come in the order in which they began."""
    sampler, tried, running = make_sampler(spec), dict[int, Tried](), deque[int]()
    proposals = []
    for index in range(trials):
        if len(running) == pending:
            done = running.popleft()
            value = sign * objective(tried[done].parameters)
            tried[done] = Tried(tried[done].parameters, {1: value if math.isfinite(value) else None}, failed=False)
        proposals.append(ask(sampler, index, tried))
        tried[index] = Tried(proposals[-1].parameters, {}, failed=False)
        running.append(index)
    return proposals


def best(spec: StudySpec, objective: Objective, pending: int = 16, trials: int = 100) -> float:
    """The logarithm of the best value of so many trials."""
    values = (objective(proposal.parameters) for proposal in search(spec, objective, trials, pending))
    return math.log10(min(value for value in values if math.isfinite(value)))


def results(count: int, budget: int = 1, seed: int = 0) -> dict[int, Tried]:
    """Trials drawn at random, with their values of the bowl as results."""
    sampler = make_sampler(study_spec(sampler="random", seed=seed))
    drawn = [ask(sampler, index, {}).parameters for index in range(count)]
    return {index: Tried(each, {budget: bowl(each)}, failed=False) for index, each in enumerate(drawn)}


def why(tried: Mapping[int, Tried], sampler: str = "tpe") -> set[str]:
    """What is said about the next twenty trials if nothing else becomes known."""
    made = make_sampler(study_spec(sampler=sampler))
    return {ask(made, index, tried).why for index in range(10_000, 10_020)}

"""Who takes part. Another scheduler, sampler or peer is another line."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from benchmarks.engine.engine import Engine
from benchmarks.engine.problem import BUDGETS
from benchmarks.engine.with_halvard import SchedulerAlone, WholeTuner, study_spec
from halvard.study import StudySpec
from halvard.trial import Trial

LADDER = {"maxBudget": BUDGETS[-1]}
FULL = {"budget": BUDGETS[-1]}
SCHEDULERS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "asha": ("asha", LADDER),
    "asha, 3 brackets": ("asha", {**LADDER, "brackets": 3}),
    "hyperband": ("hyperband", LADDER),
    "adaptive": ("adaptive", LADDER),
    "median": ("median", {**FULL, "interval": 9}),
    "patience": ("patience", {**FULL, "interval": 9, "patience": 18}),
    "none": ("none", FULL),
}
SAMPLERS = ("random", "sobol", "grid", "tpe", "bohb", "gp", "auto")
STEP = 0.25  # so coarse a grid has two million points

Group = Literal["peers", "schedulers", "samplers", "memory"]
"""The table in which it is shown."""


@dataclass(frozen=True, slots=True)
class Contender:
    """`make` takes trials to know and a seed; they came by the scheduler `history`. `what`: what is in a decision."""

    name: str
    groups: frozenset[Group]
    make: Callable[[Iterable[Trial], int], Engine]
    history: str = "asha"
    what: str = ""
    peer: bool = False


def spec_of(scheduler: str, sampler: str, seed: int, step: float | None = None) -> StudySpec:
    """Returns the study of a scheduler and a sampler by the names they have here."""
    return study_spec(*SCHEDULERS[scheduler], sampler, seed, step)


def halvard(scheduler: str, sampler: str, *groups: Group, history: str = "", step: float | None = None) -> Contender:
    name = f"{scheduler} + {sampler}" + (", no parameter is continuous" if step and sampler != "grid" else "")
    return Contender(
        name,
        frozenset(groups),
        lambda trials, seed: WholeTuner(spec_of(scheduler, sampler, seed, step), trials),
        history or scheduler,
        "a report told, and parameters of a new trial, or why one goes on",
    )


def peer(name: str, module: str, what: str, *groups: Group, **options: str) -> Contender:
    def make(trials: Iterable[Trial], seed: int) -> Engine:
        engine: Engine = import_module(f"benchmarks.engine.{module}").Asha(trials, seed, **options)
        return engine

    return Contender(name, frozenset(groups), make, what=what, peer=True)


REFERENCE = halvard("asha", "random", "peers", "schedulers", "samplers", "memory")
ALONE = Contender(
    "asha alone",
    frozenset({"peers", "memory"}),
    lambda trials, seed: SchedulerAlone(spec_of("asha", "random", seed), trials),
    what="a report told, and who goes on: no parameters, as in Ray Tune",
)
ASK_AND_TELL = "a report told and, where its trial ends, parameters of a new one"

CONTENDERS = (
    REFERENCE,
    ALONE,
    peer("Ray Tune ASHA", "with_ray", "a report told, and whether it ends: no parameters", "peers", "memory"),
    peer("Optuna SHA + random", "with_optuna", ASK_AND_TELL, "peers", "memory", sampler="random"),
    peer("Syne Tune ASHA", "with_syne_tune", ASK_AND_TELL, "peers", "memory"),
    *(halvard(name, "random", "schedulers") for name in SCHEDULERS if name not in {"asha", "adaptive"}),
    halvard("adaptive", "random", "schedulers", history="asha"),  # its own would take hours
    halvard("adaptive", "auto", "schedulers", "memory", history="asha"),
    halvard("asha", "random", "samplers", step=STEP),
    *(halvard("asha", name, "samplers", step=STEP if name == "grid" else None) for name in SAMPLERS[1:]),
    peer("Optuna SHA + TPE", "with_optuna", ASK_AND_TELL, "samplers", sampler="tpe"),
)

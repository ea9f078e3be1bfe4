"""Who takes part. Another policy is another line."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from benchmarks.quality.loop import Outcome
from benchmarks.quality.problem import Condition, Problem


@dataclass(frozen=True, slots=True)
class Policy:
    """`module` runs it with `options`; `package` is what it is made of; `fair`: whether this does it justice."""

    name: str
    module: str
    options: Mapping[str, str | int]
    package: str
    fair: str
    colour: str = ""  # in the plot; without, it is not in it

    def run(self, problem: Problem, condition: Condition, seed: int) -> Outcome:
        outcome: Outcome = import_module(f"benchmarks.quality.{self.module}").run(
            problem, condition, seed, **self.options
        )
        return outcome


def halvard(scheduler: str, sampler: str, colour: str = "", fair: str = "The tuner as it is, hot promotion.") -> Policy:
    options = {"sampler": sampler, "scheduler": scheduler}
    return Policy(f"{scheduler} + {sampler}", "with_halvard", options, "halvard", fair, colour)


def optuna(name: str, pruner: str, fair: str, colour: str = "") -> Policy:
    return Policy(f"Optuna {name}", "with_optuna", {"pruner": pruner}, "optuna", f"{STOPS} {fair}", colour)


def syne_tune(name: str, baseline: str, fair: str, colour: str = "") -> Policy:
    return Policy(f"Syne Tune {name}", "with_syne_tune", {"baseline": baseline}, "syne-tune", f"{STOPS} {fair}", colour)


STOPS = "It stops trials where Halvard pauses them."
POINTS = "The same random points as `asha + random`."
TPE = "Multivariate TPE with constant liar, told the trained row."

REFERENCE = "adaptive + auto"
"""What all others are compared with."""

POLICIES = (
    halvard("adaptive", "auto", "#d62728"),
    halvard("asha", "auto", "#ff9896"),
    halvard("asha", "tpe"),
    halvard("asha", "bohb"),
    halvard("asha", "gp"),
    halvard("asha", "random", "#7f7f7f"),
    halvard("none", "random", "#c7c7c7", "No ladder: every trial trains to the full budget."),
    optuna("SHA + TPE", "sha", TPE, "#1f77b4"),
    optuna("SHA + TPE, defaults", "sha, defaults", f"Reduction factor 4, no pruning before a trial is done. {TPE}"),
    optuna("Hyperband + TPE", "hyperband", f"Its defaults, which have this ladder. {TPE}", "#17becf"),
    Policy("Ray Tune ASHA", "with_ray", {"eta": 3}, "ray", f"{STOPS} {POINTS}", "#2ca02c"),
    Policy("Ray Tune ASHA, defaults", "with_ray", {"eta": 4}, "ray", f"{STOPS} Reduction factor 4. {POINTS}"),
    syne_tune("ASHA", "ASHA", POINTS),
    syne_tune("BOHB", "BOHB", "Told the trained row.", "#9467bd"),
)

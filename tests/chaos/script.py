"""What happens in a story: which leg is next, what befalls it, and what it reports."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from cluster.scripted import template
from halvard.kube import Manifest

Deed = Literal["reports", "last words", "evicted", "crashes"]


@dataclass(frozen=True)
class Script:
    """What happens in a story: a pure function of its seed.

    A deed befalls the live leg whose turn it is (`turn`, least first). Most report, some of them without a network, in
    their last words; the `faults` befall others.
    """

    seed: int
    trials: int = 9
    parallelism: int = 3
    target: float = 0.45  # some come to it, and end while legs are running; others do not
    faults: tuple[Deed, ...] = ("evicted", "crashes", "evicted")

    def study(self) -> Manifest:
        """The Study's spec."""
        return {
            "objective": {"metric": "loss", "goal": "minimize", "target": self.target},
            "scheduler": {"asha": {"minBudget": 1, "maxBudget": 4, "reductionFactor": 2}},
            "parallelism": self.parallelism,
            "limits": {"trials": self.trials},
            "seed": self.seed,
            "checkpoint": {"persistentVolumeClaim": {"claimName": "checkpoints"}},
            "template": template(terminationGracePeriodSeconds=1),
        }

    def value(self, trial: int, budget: int) -> float:
        """What a trial reports at this budget, whoever runs it and however often."""
        quality, noise = Random(f"{self.seed} {trial}").random(), Random(f"{self.seed} {trial} {budget}").random()
        return round(quality + (noise + 1) / (budget + 1), 6)

    def report(self, trial: int, budget: int, *, before: int = 0) -> Manifest:
        """What a trial reports at this budget, or so many steps `before` it."""
        step = budget - before
        return {"step": step, "metrics": {"loss": self.value(trial, budget)}, "checkpoint": f"step-{step}"}

    def turn(self, trial: int, budget: int) -> float:
        """Among live legs, the one with the least is next."""
        return Random(f"turn {self.seed} {trial} {budget}").random()

    def deed(self, number: int) -> Deed:
        """What happens to whoever is next, counted from 0."""
        places = sorted(Random(f"faults {self.seed}").sample(range(1, self.trials + 3), len(self.faults)))
        if number in places:
            return self.faults[places.index(number)]
        return "last words" if Random(f"deed {self.seed} {number}").random() < 0.2 else "reports"

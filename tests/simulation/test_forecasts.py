"""What `adaptive` says of the end of trials, and what became of them on real learning curves."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from halvard.simulate.conditions import Conditions
from halvard.simulate.files import read_table
from halvard.simulate.world import simulate
from simulation.world import study

TABLES = Path(__file__).parents[2] / "benchmarks" / "tables"
SAID = re.compile(r"final value expected .+ \(90 %: (.+)\), (\S+)% to beat ([^,;]+)")


def ends(interval: str) -> tuple[float, float]:
    """The limits as people read them."""
    parts = interval.split(" to ")
    best, worst = parts[0], parts[-1]
    return (
        -math.inf if best.endswith("better") else float(best.split()[0]),
        math.inf if worst.endswith("worse") else float(worst.split()[0]),
    )


@pytest.mark.parametrize("name", ["digits", "quant"])
def test_nine_in_ten_trials_end_where_they_are_said_to_and_about_as_many_beat_the_best(name: str) -> None:
    table = read_table(TABLES / f"{name}.npz")
    axes = [{"name": axis, "float": {"min": 0, "max": 1}} for axis in table.names]
    adaptive = study(
        parameters=axes, sampler={"auto": {}}, scheduler={"adaptive": {"maxBudget": 81}}, limits={"trials": 100}
    )
    simulation = simulate(adaptive, table, Conditions(workers=16))
    finals = {each.trial.index: float(table.value[each.row, 80]) for each in simulation.trials}
    kept, open_to_both, chances, beaten = [], [], [], []
    for decision in simulation.decisions:
        if said := SAID.search(decision.why):
            low, high = ends(said[1])
            final = finals[decision.trial] if math.isfinite(finals[decision.trial]) else math.inf
            kept.append(low <= final <= high)
            open_to_both.append(math.isinf(low) and math.isinf(high))
            chances.append(float(said[2]) / 100)
            beaten.append(final < float(said[3]))
    assert len(kept) > 150
    assert np.mean(kept) >= 0.87
    assert np.mean(kept[: len(kept) // 3]) >= 0.85  # while none has trained in full
    assert np.mean(open_to_both) < 0.35
    assert np.mean(chances) == pytest.approx(np.mean(beaten), abs=0.2)  # it says too little at the beginning

"""A small table of learning curves, made up but seeded, and studies on it."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from halvard.simulate.conditions import Conditions
from halvard.simulate.result import Simulation
from halvard.simulate.table import Table
from halvard.simulate.world import simulate
from halvard.study import Study
from history import Accepted, History, Pod, assert_sound

ROWS, STEPS = 60, 9
AXES = [
    {"name": "width", "float": {"min": 0.0, "max": 1.0}},
    {"name": "lr", "float": {"min": 1e-4, "max": 1.0, "scale": "log"}},
]


def arrays(seed: int = 0) -> dict[str, Any]:
    """The arrays of a table: better with lr near 0.6 of its range and with every step; every tenth row diverges."""
    draw = np.random.default_rng(seed)
    u = draw.random((ROWS, 2))
    value = (u[:, :1] - 0.6) ** 2 + 0.5 / np.arange(1, STEPS + 1) + 0.02 * draw.standard_normal((ROWS, STEPS))
    value[::10, 2:] = np.nan
    return {
        "names": np.array(["lr", "width"]),
        "u": u,
        "value": value,
        "seconds": 60 * (0.5 + draw.random((ROWS, STEPS))),
    }


def make_study(**spec: Any) -> Study:
    """A study on the table; `spec` overrides fields (camelCase)."""
    base: dict[str, Any] = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": AXES,
        "sampler": {"random": {}},
        "scheduler": {"asha": {"maxBudget": STEPS}},
        "limits": {"trials": 40},
        "template": {"spec": {"containers": [{"name": "trainer"}]}},
    }
    return Study.model_validate({"name": "s", "spec": base | spec})


def history_of(simulation: Simulation) -> History:
    """What is left of a simulated study: each attempt's Pod, and the reports that brought results."""
    spans = defaultdict(list)
    for span in (span for trial in simulation.trials for span in trial.spans):
        spans[span.trial, span.attempt].append(span)
    pods = [
        Pod(*key, uid=f"{key}", began=own[0].began, ended=own[-1].ended, gpus=simulation.gpus)
        for key, own in spans.items()
    ]
    accepted = [
        Accepted(result.trial, f"{key}", result.step, result.ended)
        for key, own in spans.items()
        for result in own
        if result.budget is not None
    ]
    trials = tuple(trial.trial for trial in simulation.trials)
    return History(simulation.study, trials, pods=tuple(pods), accepted=tuple(accepted))


def checked(study: Study, table: Table, conditions: Conditions) -> Simulation:
    """What comes of the study, once the history checker has found nothing in it."""
    simulation = simulate(study, table, conditions)
    assert_sound(history_of(simulation))
    return simulation


@pytest.fixture
def table() -> Table:
    return Table.from_arrays(arrays())

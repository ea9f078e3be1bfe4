"""Simple regret over time: how far the best trial finished by then is from the table's best."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality.policies import POLICIES, REFERENCE
from benchmarks.quality.problem import Condition, Problem
from benchmarks.quality.report import Cells
from benchmarks.quality.summary import regret

POINTS = 120
FLOOR = 1e-3


def draw(path: Path, cells: Cells, problems: Sequence[Problem]) -> None:
    """Draws a panel for each number of workers and each table, where Pods start at once."""
    conditions = [condition for condition in dict.fromkeys(key[0] for key in cells) if not condition.start_up]
    if not conditions:
        return
    mpl.rcParams["font.size"] = 8
    figure = Figure(figsize=(2.6 * len(problems) + 0.4, 2.2 * len(conditions) + 0.8), layout="constrained")
    panels = figure.subplots(len(conditions), len(problems), squeeze=False, sharey=True)
    for row, condition in zip(panels, conditions, strict=True):
        for panel, problem in zip(row, problems, strict=True):
            _panel(panel, condition, problem, cells)
        row[0].set_ylabel(f"{condition.workers} workers\nregret")
    for panel in panels[-1]:
        panel.set_xlabel("time in R")
    known = {line.get_label(): line for panel in panels.flat for line in panel.get_lines()}
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _panel(panel: "mpl.axes.Axes", condition: Condition, problem: Problem, cells: Cells) -> None:
    final = problem.table.value[:, -1]
    best, typical = problem.table.best("minimize", problem.steps), float(np.nanmedian(final))
    times = np.linspace(0.0, condition.cap, POINTS)
    for policy in POLICIES:
        cell = cells.get((condition, policy.name, problem.name))
        if not policy.colour or cell is None:
            continue
        curves = [regret(run, best, typical, times.tolist()) for run in cell.runs.values()]
        middle = np.maximum(np.mean(curves, axis=0), FLOOR)
        wide = 1.8 if policy.name == REFERENCE else 1.0
        panel.plot(times, middle, color=policy.colour, linewidth=wide, drawstyle="steps-post", label=policy.name)
    panel.axhline((problem.target - best) / (typical - best), color="black", linewidth=0.5, linestyle=":", label="good")
    panel.set_yscale("log")
    panel.set_xlim(0, condition.cap)
    panel.set_title(problem.name)

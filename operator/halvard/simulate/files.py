"""What `halvard simulate` reads and writes: a table as npz, and what came of simulations as JSON lines."""

import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from halvard.simulate.conditions import Conditions
from halvard.simulate.result import Simulation
from halvard.simulate.table import Table, TableError

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,  # a header that promises more numbers than there can be
    RuntimeError,  # encrypted, or compressed in a way that is not known
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise at files that they cannot read."""


def read_table(path: Path) -> Table:
    """Returns the table in an npz file; raises TableError, which names the file."""
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise TableError("one array alone: must be an npz file of several, as numpy.savez writes it")
            # what is not in numpy's own format comes as bytes
            return Table.from_arrays({name: array for name, array in arrays.items() if isinstance(array, np.ndarray)})
    except UNREADABLE as error:
        raise TableError(f"{path}: not an npz file that numpy can read: {error}") from error
    except TableError as error:
        raise TableError(f"{path}: {error}") from error


def write_lines(path: Path, simulations: Iterable[Simulation], conditions: Conditions) -> None:
    """Writes a line for each simulation, followed by one for each of its trials."""
    with path.open("w", encoding="utf-8") as file:
        for simulation in simulations:
            for line in _lines(simulation, conditions):
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def _lines(simulation: Simulation, conditions: Conditions) -> Iterator[dict[str, Any]]:
    spec = simulation.study.spec
    yield {
        "study": simulation.study.name,
        "scheduler": spec.scheduler.model_dump(by_alias=True, exclude_none=True),
        "seed": spec.seed,
        "conditions": _finite(asdict(conditions)),
        "seconds": simulation.seconds,
        "busy": simulation.busy(),
        "improvements": [_finite(asdict(improvement)) for improvement in simulation.improvements],
    }
    decisions: dict[int, list[dict[str, Any]]] = {simulated.trial.index: [] for simulated in simulation.trials}
    for decision in simulation.decisions:
        decisions[decision.trial].append(asdict(decision))
    for simulated in simulation.trials:
        trial = simulated.trial
        yield {
            "trial": trial.index,
            "row": simulated.row,
            "parameters": dict(trial.spec.parameters),
            "state": trial.status.state,
            "results": {result.budget: result.value for result in trial.status.rungs},
            "decisions": decisions[trial.index],
            "spans": [asdict(span) for span in simulated.spans],
        }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a worker that is never lost has null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

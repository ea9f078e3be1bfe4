"""What a trial's process sees: the environment of the contract, the same in a Pod and on this machine (pure)."""

import hashlib
import json
import re
from collections.abc import Mapping

from halvard.study import Study, Value
from halvard.trial import Trial

VERDICT_TIMEOUT = 60
"""Seconds a trial waits at its budget for the answer; then it exits, its checkpoint saved."""


def environment(
    study: Study, trial: Trial, start: int, *, reports: str, verdict: str, checkpoint_dir: str, resume_from: str
) -> dict[str, str]:
    """Returns every `HALVARD_` variable of one leg; `start` is what is already done, the rest are paths in its view."""
    return {
        "HALVARD_STUDY": study.name,
        "HALVARD_TRIAL": trial.name,
        "HALVARD_SEED": str(trial_seed(study.spec.seed, trial.index)),
        "HALVARD_BUDGET": str(trial.spec.budget),
        "HALVARD_START": str(start),
        "HALVARD_CHECKPOINT_DIR": checkpoint_dir,
        "HALVARD_RESUME_FROM": resume_from,
        "HALVARD_REPORTS": reports,
        "HALVARD_VERDICT": verdict,
        "HALVARD_VERDICT_TIMEOUT": str(VERDICT_TIMEOUT),
        **parameter_environment(trial.spec.parameters),
    }


def parameter_environment(parameters: Mapping[str, Value]) -> dict[str, str]:
    """Returns `HALVARD_PARAMETERS` (one JSON object) and a `HALVARD_PARAM_<NAME>` for each parameter, as text."""
    each = {parameter_variable(name): text(value) for name, value in parameters.items()}
    return {"HALVARD_PARAMETERS": json.dumps(dict(parameters)), **each}


def parameter_variable(name: str) -> str:
    """Returns the variable that carries the parameter: `weight-decay` becomes `HALVARD_PARAM_WEIGHT_DECAY`."""
    return "HALVARD_PARAM_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def text(value: Value) -> str:
    """Returns one value as a command line expects it: text as it is, `true`/`false`, numbers as JSON writes them."""
    return value if isinstance(value, str) else json.dumps(value)


def trial_seed(study_seed: int, index: int) -> int:
    """Returns the trial's own seed in [0, 2^32): the first four bytes of SHA-256 over `<study seed>/<index>`.

    Every leg and every attempt of a trial gets the same one, and no two trials of a study are correlated.
    """
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{index}".encode()).digest()[:4], "big")

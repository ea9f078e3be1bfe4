"""The example that `make demo` runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from halvard.contract import environment
from halvard.study import Study
from halvard.trial import Trial, TrialSpec

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
STUDY = Study.from_manifest(yaml.safe_load((DIGITS / "study.yaml").read_text()))
PARAMETERS = {
    "lr": 0.01,
    "optimizer": "adam",
    "batch_size": 128,
    "layers": 1,
    "hidden": 32,
    "weight_decay": 1e-5,
}


def train(folder: Path, budget: int, start: int = 0, resume_from: Path | str = "") -> list[tuple[int, float, float]]:
    """Run one leg to its end; what it reported."""
    folder.mkdir()
    trial = Trial(name="digits-0001", spec=TrialSpec(index=1, budget=budget, parameters=PARAMETERS))
    reports = folder / "reports.jsonl"
    contract = environment(
        STUDY,
        trial,
        start,
        reports=str(reports),
        verdict=str(folder / "verdict.json"),
        checkpoint_dir=str(folder),
        resume_from=str(resume_from),
    )
    command = [sys.executable, str(DIGITS / "train.py")]
    subprocess.run(command, env={**os.environ, **contract, "HALVARD_VERDICT_TIMEOUT": "0"}, check=True)
    lines = [json.loads(line) for line in reports.read_text().splitlines()]
    return [(line["step"], line["val_loss"], line["val_error"]) for line in lines]


def test_a_resumed_trial_reports_exactly_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    undisturbed = train(tmp_path / "undisturbed", 3)

    first = train(tmp_path / "first", 1)
    second = train(tmp_path / "second", 3, start=1, resume_from=tmp_path / "first" / "step-1")

    assert undisturbed == [*first, *second]


def test_it_learns(tmp_path: Path) -> None:
    *_, (_, loss, error) = train(tmp_path / "run", 3)
    assert loss < 0.5
    assert error < 0.15

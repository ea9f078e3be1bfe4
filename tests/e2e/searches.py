"""Studies that several tests run: what their trials do, and what one machine makes of the same."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from e2e.studies import Manifest, python, study, template
from lab.cluster import Cluster
from lab.existing import Existing

CHECKPOINTS = {"persistentVolumeClaim": {"claimName": "checkpoints"}}
# Its loss is x / step. At every step it tells what it is, and each checkpoint holds that line.
TRAINER = """
import errno, json, os, time
from halvard_trainer import Trial

trial = Trial.from_environment()
came_with, read_only = "", False
if trial.resume_from:
    came_with = trial.resume_from.read_text()
    try:
        trial.resume_from.with_name("mine").touch()
    except OSError as error:
        read_only = error.errno == errno.EROFS
for step in trial.steps():
    time.sleep(float(os.environ.get("PACE", "0")))
    told = {"step": step, "pid": os.getpid(), "start": trial.start, "came_with": came_with, "read_only": read_only}
    print(json.dumps(told), flush=True)
    trial.report(loss=trial.parameters["x"] / step, checkpoint=lambda path: path.write_text(f"{trial.name} {step}"))
"""


def random_search(cluster: Cluster | Existing, pace: int = 0) -> Manifest:
    """A Study of nine random trials on three rungs, one at a time: its reports can come in one order only.

    `pace`: the seconds that a step takes.
    """
    return study(
        template(cluster, python(TRAINER), env=[{"name": "PACE", "value": str(pace)}]),
        [],
        parameters=[{"name": "x", "float": {"min": 0.001, "max": 1.0, "scale": "log"}}],
        sampler={"random": {}},
        scheduler={"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
        limits={"trials": 9},
        seed=9,
    )


def run_here(manifest: Manifest, folder: Path) -> list[Manifest]:
    """The Trials that `halvard run` makes of a Study."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(manifest))
    command = [str(Path(sys.executable).with_name("halvard")), "run", str(path), "--results", str(folder)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return [json.loads(record.read_text()) for record in sorted((folder / "search" / "trials").glob("*.json"))]

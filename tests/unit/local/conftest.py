"""A study whose trainers are real processes, and the command that runs it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

TRAINER = Path(__file__).with_name("scripted_trainer.py")
TIMEOUT = 60.0


class Workshop:
    """One study in a directory of its own: its manifest, and what `halvard run` makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results" / "study"
        self.trace = folder / "trace"

    def manifest(self, *, env: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        """A study of nine trials with budgets 1, 3 and 9, one at a time; `spec` overrides its fields."""
        variables = {"TRACE": str(self.trace), **(env or {})}
        container = {
            "name": "trainer",
            "image": "registry.example.com/scripted:1",
            "command": ["python3", str(TRAINER)],
            "env": [{"name": name, "value": value} for name, value in variables.items()],
        }
        common: dict[str, Any] = {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "x", "float": {"min": 0.0, "max": 1.0}}],
            "sampler": {"random": {}},
            "scheduler": {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
            "parallelism": 1,
            "limits": {"trials": 9},
            "seed": 9,  # three hot promotions, two legs that resume
            "template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}},
        }
        metadata = {"name": "study"}
        return {"apiVersion": "halvard.dev/v1alpha1", "kind": "Study", "metadata": metadata, "spec": {**common, **spec}}

    def write(self, manifest: dict[str, Any]) -> Path:
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(manifest))
        return path

    def command(self, manifest: dict[str, Any]) -> list[str]:
        program = "from halvard.cli import main; main()"
        return [sys.executable, "-c", program, "run", str(self.write(manifest)), "--results", str(self.results.parent)]

    def run(self, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Run the study to its end; not on a terminal, so the log comes out."""
        return subprocess.run(self.command(manifest), capture_output=True, text=True, timeout=TIMEOUT, check=False)

    def interrupt(self, manifest: dict[str, Any], number: signal.Signals, *, after: int) -> subprocess.Popen[bytes]:
        """Run the study, and send its runner a signal once its trainers have made so many steps."""
        runner = subprocess.Popen(self.command(manifest), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: len(self.steps()) >= after)
            runner.send_signal(number)
            runner.wait(TIMEOUT)
        finally:
            runner.kill()
            runner.wait()
        return runner

    def steps(self) -> list[tuple[str, int, int]]:
        """Every step that a trainer made, in order: trial, step, process."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [(trial, int(step), int(pid)) for trial, step, pid in map(str.split, lines)]

    def trials(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.results / "trials").glob("*.json"))]

    def legs(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.results / "trials").glob("*/*/leg.json"))]

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = yaml.safe_load((self.results / "study.yaml").read_text())["status"]
        return status

    def decisions(self) -> list[tuple[Any, ...]]:
        """What was decided and what came of it, without what depends on the machine's pace."""
        return [
            (
                trial["metadata"]["name"],
                trial["spec"],
                trial["status"]["state"],
                [(result["budget"], result.get("value")) for result in trial["status"].get("rungs", [])],
            )
            for trial in self.trials()
        ]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A study that has not run."""
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A study that has run undisturbed, for those who only look."""
    workshop = Workshop(tmp_path_factory.mktemp("finished"))
    done = workshop.run(workshop.manifest())
    assert (done.returncode, done.stderr) == (0, "")
    return workshop

"""What the sidecar's tests share: certificates, a scripted endpoint, and a real sidecar; the trainer is the test."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import halvard_trainer
from unit.trainer.scripted_endpoint import Certificates, ScriptedEndpoint, issue

TIMEOUT = 60  # seconds; only a hang comes near it


class Sidecar:
    """The collector as a process of its own, and the files it shares with the trainer."""

    def __init__(self, directory: Path, url: str, ca: str) -> None:
        self.directory = directory
        self.environment = {
            "PYTHONPATH": str(Path(halvard_trainer.__file__).parents[1]),
            "PATH": os.environ["PATH"],
            "HALVARD_REPORTS": str(directory / "reports.jsonl"),
            "HALVARD_VERDICT": str(directory / "verdict.json"),
            "HALVARD_SPOOL": str(directory / "spool.json"),
            "HALVARD_BUDGET": "3",
            "HALVARD_START": "0",
            "HALVARD_OBJECTIVE": "loss",
            "HALVARD_COLLECTOR_URL": url,
            "HALVARD_COLLECTOR_CA": ca,
            "HALVARD_TOKEN": str(directory / "token"),
            "HALVARD_TERMINATION_LOG": str(directory / "termination-log"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "token").write_text("secret\n")
        (directory / "termination-log").touch()

    def start(self, **changes: object) -> "Sidecar":
        """Start it, with HALVARD_<NAME> changed for good."""
        self.environment.update({f"HALVARD_{name.upper()}": str(value) for name, value in changes.items()})
        with (self.directory / "stderr").open("ab") as stderr:
            command = [sys.executable, "-m", "halvard_trainer.collector"]
            self._process = subprocess.Popen(command, env=self.environment, stderr=stderr)
        return self

    def report(self, *steps: int, **more: object) -> None:
        """Append one report for each step, as a trainer does."""
        with (self.directory / "reports.jsonl").open("a") as file:
            file.writelines(json.dumps({"step": step, "loss": step / 10, **more}) + "\n" for step in steps)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(TIMEOUT)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self) -> int:
        assert self._process is not None
        return self._process.wait(TIMEOUT)

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def verdict(self) -> Any:
        return self._json("verdict.json")

    @property
    def spool(self) -> Any:
        return self._json("spool.json")

    @property
    def acknowledged(self) -> Any:
        return self._json("acknowledged.json")

    @property
    def message(self) -> Any:
        return self._json("termination-log")

    def _json(self, name: str) -> Any:
        path = self.directory / name
        return json.loads(path.read_text() or "null") if path.exists() else None


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def endpoint(certificates: Certificates) -> Iterator[ScriptedEndpoint]:
    endpoint = ScriptedEndpoint(certificates.good)
    yield endpoint
    endpoint.close()


@pytest.fixture
def sidecar(tmp_path: Path, endpoint: ScriptedEndpoint, certificates: Certificates) -> Iterator[Sidecar]:
    sidecar = Sidecar(tmp_path, endpoint.url, certificates.ca)
    yield sidecar
    sidecar.kill()

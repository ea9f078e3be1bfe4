"""`halvard operator` as a process of this machine, to be stopped, killed and started again while Pods push to it."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from lab.control_plane import free_port, stop

START_TIMEOUT = 60.0  # seconds: one that was killed leaves a Lease that first runs out


class OperatorError(Exception):
    """The operator did not become ready; the message holds the end of its log."""


class OperatorProcess:
    """An operator of one namespace. It keeps its ports and certificates, so Pods find it again after a restart."""

    def __init__(self, kubeconfig: Path, address: str, namespace: str, collector_image: str, directory: Path) -> None:
        """Chooses ports; nothing runs yet. `directory` takes the log and the certificates."""
        self.log = directory / "operator.log"
        self.metrics_port = free_port()
        self.collector_port = free_port()
        self.settings = {
            "KUBECONFIG": str(kubeconfig),
            "HALVARD_NAMESPACES": namespace,
            "HALVARD_LEASE_NAMESPACE": namespace,
            "HALVARD_COLLECTOR_IMAGE": collector_image,
            "HALVARD_COLLECTOR_URL": f"https://{address}:{self.collector_port}",
            "HALVARD_COLLECTOR_PORT": str(self.collector_port),
            "HALVARD_METRICS_PORT": str(self.metrics_port),
            "HALVARD_TLS_DIRECTORY": str(directory / "tls"),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the operator and waits until it leads and has seen everything; raises OperatorError."""
        command = Path(sys.executable).with_name("halvard")
        with self.log.open("ab") as log:
            environment = {**os.environ, **self.settings}
            self.process = subprocess.Popen([command, "operator"], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise OperatorError(f"the operator is not ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the operator as Kubernetes does, by SIGTERM."""
        stop(self.process)
        self.process = None

    def kill(self) -> None:
        """Ends the operator with no chance to finish anything."""
        if self.process is not None:
            self.process.kill()
        self.stop()

    def metrics(self) -> str:
        """What `/metrics` says."""
        return self._get("/metrics")

    def _ready(self) -> bool:
        try:
            return self._get("/readyz") == "leading\n"
        except (OSError, urllib.error.URLError):
            return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

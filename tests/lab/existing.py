"""Somebody's own cluster in place of the lab's: what the tests need to know of it comes from the environment."""

import json
import os
import subprocess
from pathlib import Path

from lab.control_plane import kubectl

VARIABLES = ("KUBECONFIG", "E2E_OPERATOR_ADDRESS", "E2E_TRAINER_IMAGE", "E2E_COLLECTOR_IMAGE")


class Existing:
    """The cluster that `$KUBECONFIG` names; Pods reach what listens on this machine at `address`."""

    def __init__(self) -> None:
        """Reads the environment; raises ValueError naming the variables that are missing."""
        missing = [name for name in VARIABLES if not os.environ.get(name)]
        if missing:
            raise ValueError(f"E2E_CLUSTER=existing needs {', '.join(missing)} (tests/e2e/README.md)")
        self.kubeconfig = self.operator_kubeconfig = Path(os.environ["KUBECONFIG"])
        self.address = os.environ["E2E_OPERATOR_ADDRESS"]
        self.trainer_image = os.environ["E2E_TRAINER_IMAGE"]
        self.collector_image = os.environ["E2E_COLLECTOR_IMAGE"]

    def kubectl(
        self,
        *arguments: str,
        input: str = "",  # noqa: A002  # as in subprocess.run
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl; raises ControlPlaneError with its words where it fails and `check` is on."""
        return kubectl(self.kubeconfig, *arguments, input=input, check=check)

    def claim(self, namespace: str, name: str) -> None:
        """Makes a PersistentVolumeClaim of the cluster's default storage class."""
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(claim))

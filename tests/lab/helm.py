"""The real Helm, on the cluster that a kubeconfig names: `Helm(kubeconfig, home).run("install", "x", str(CHART))`."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.binaries import binary

CHART = Path(__file__).parents[2] / "helm" / "halvard"


class HelmError(Exception):
    """Helm refused or failed; the message holds its words."""


@dataclass(frozen=True)
class Helm:
    """Helm with a home of its own: what the person who runs the tests has told theirs changes nothing."""

    kubeconfig: Path
    home: Path

    def run(self, *arguments: str, input: str = "") -> str:  # noqa: A002  # as in subprocess.run
        """What Helm prints; raises HelmError with its words where it fails."""
        told = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        homes = {f"HELM_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        command = [str(binary("helm")), f"--kubeconfig={self.kubeconfig}", *arguments]
        environment = {**told, **homes}
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

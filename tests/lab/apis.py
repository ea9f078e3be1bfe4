"""Custom resources of others that the chart makes objects of, as their projects publish them: inside Go modules."""

import json
import subprocess
import tempfile
from pathlib import Path

from lab.binaries import BuildError, go

# module, the hash of its archive as a go.sum has it, folder, files
PUBLISHED = (
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml"),
    ),
    (
        "github.com/cert-manager/cert-manager@v1.19.1",
        "h1:Txh8L/nLWTDcb7ZnXuXbTe15BxQnLbLirXmbNk0fGgY=",
        "deploy/crds",
        ("cert-manager.io_certificates.yaml", "cert-manager.io_issuers.yaml"),
    ),
)


def definitions() -> list[Path]:
    """The definitions of ServiceMonitor, PrometheusRule, Certificate and Issuer; raises BuildError."""
    return [
        Path(unpacked(module, archive), folder, file) for module, archive, folder, files in PUBLISHED for file in files
    ]


def unpacked(module: str, archive: str) -> str:
    """Where Go's own cache has a module, downloaded into it first where it has not; raises BuildError."""
    command = [str(go()), "mod", "download", "-json", module]
    with tempfile.TemporaryDirectory() as nowhere:  # a go.mod around here has nothing to do with it
        done = subprocess.run(command, cwd=nowhere, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout or "{}")
    if answer.get("Sum") != archive:
        raise BuildError(f"{module} is not there with the hash {archive}: {done.stdout}{done.stderr}")
    return str(answer["Dir"])

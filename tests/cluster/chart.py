"""What the tests of the chart share: it is rendered by the real Helm, without a cluster."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lab import binaries
from lab.helm import CHART, Helm

ROOT = CHART.parents[1]
NAMESPACE = "halvard-system"
FOREIGN = ("monitoring.coreos.com/v1", "cert-manager.io/v1")
ALL_ON: dict[str, Any] = {
    "replicas": 2,
    "metrics.serviceMonitor.enabled": True,
    "metrics.prometheusRule.enabled": True,
    "metrics.dashboard.enabled": True,
    "networkPolicy.enabled": True,
    "podDisruptionBudget.enabled": True,
    "priorityClass.create": True,
}

Manifest = dict[str, Any]
Values = Mapping[str, Any]
NOTHING: Values = {}
SCHEMA: Manifest = json.loads((CHART / "values.schema.json").read_text())


def render(values: Values = NOTHING, release: str = "halvard", apis: tuple[str, ...] = FOREIGN) -> list[Manifest]:
    """Every object of a release with these values, by their dotted names; raises HelmError."""
    return list(yaml.safe_load_all(rendered(release, apis, *options(values))))


def options(values: Values) -> tuple[str, ...]:
    """The options of Helm that set these values."""
    return tuple(f"--set-json={name}={json.dumps(value)}" for name, value in values.items())


@cache
def rendered(release: str, apis: tuple[str, ...], *settings: str) -> str:
    """What `helm template` prints."""
    helm = Helm(Path(os.devnull), binaries.cache() / "helm-home")
    offered = (f"--api-versions={api}" for api in apis)
    return helm.run("template", release, str(CHART), f"--namespace={NAMESPACE}", *offered, *settings)


def mistakes(objects: list[Manifest]) -> str:
    """What the Go types of FOREIGN kinds say against objects of them, a line each: unknown fields and wrong types."""
    command = [str(binaries.binary("apis"))]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(done.stderr), done
    return done.stderr


def one(objects: list[Manifest], kind: str, name: str = "halvard") -> Manifest:
    """The object of this kind and name."""
    [found] = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def leaves(schema: Manifest = SCHEMA, name: str = "") -> Iterator[tuple[str, Manifest]]:
    """Dotted name and schema of every value that has no described parts."""
    parts = {key: part for key, part in schema.get("properties", {}).items() if "description" in part}
    for key, part in parts.items():
        yield from leaves(part, f"{name}.{key}" if name else key)
    if not parts:
        yield name, schema


LEAVES = [name for name, _ in leaves() if name != "global"]

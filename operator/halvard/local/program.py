"""What a leg runs on this machine: the container `trainer` of the template as a command and its environment."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halvard.pods import TRAINER, is_gpu

GPU = "nvidia.com/gpu"
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


@dataclass(frozen=True, slots=True)
class Program:
    """A command, and the whole environment it runs in."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def trainer(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the container that is the trial."""
    containers: Iterable[Mapping[str, Any]] = template["spec"]["containers"]
    return next(container for container in containers if container["name"] == TRAINER)


def program(template: Mapping[str, Any], contract: Mapping[str, str], inherited: Mapping[str, str]) -> Program:
    """Returns what to run: the template's command and arguments, expanded as Kubernetes does, and its `env`.

    `contract` is what Halvard tells the trial (it wins over the template), `inherited` this process's own environment.
    """
    container = trainer(template)
    told = dict(contract)
    for entry in container.get("env") or ():
        if "valueFrom" not in entry:
            told.setdefault(entry["name"], expand(str(entry.get("value", "")), told))
    if not isinstance(container.get("args") or [], list):
        raise TypeError("args must be a list")
    parts = (part for name in ("command", "args") for part in container.get(name) or ())
    arguments = (expand(str(part), told) for part in parts)
    ours = {name: value for name, value in inherited.items() if not name.startswith("HALVARD_")}
    path = os.pathsep.join((str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)))
    return Program(tuple(arguments), {**ours, "PATH": path, "PYTHONUNBUFFERED": "1", **told})


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Returns the text with `$(NAME)` replaced where there is such a variable, and `$$` by `$`, as the kubelet does."""
    return _REFERENCE.sub(lambda found: _replacement(found, variables), text)


def _replacement(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name: str | None = found.group(1)
    return "$" if name is None else variables.get(name, found.group(0))


def gpus(template: Mapping[str, Any]) -> int:
    """Returns how many GPUs a trial asks for; raises ValueError where that is no number of GPUs."""
    resources = trainer(template).get("resources") or {}
    asked = str((resources.get("limits") or {}).get(GPU, 0))
    if not asked.isdecimal():
        raise ValueError(f"{GPU} is {asked}: it must be a whole number")
    return int(asked)


def notices(template: Mapping[str, Any]) -> list[str]:
    """Returns what of the template means nothing on this machine, one sentence each."""
    container = trainer(template)
    unset = [entry["name"] for entry in container.get("env") or () if "valueFrom" in entry]
    others = [c["name"] for kind in ("initContainers", "containers") for c in template["spec"].get(kind) or ()]
    others.remove(TRAINER)
    wanted = (container.get("resources") or {}).get("limits") or {}
    not_lent = [name for name in wanted if is_gpu(name) and name != GPU]
    said = []
    if unset:
        said.append(f"env with valueFrom is not set on this machine: {', '.join(unset)}")
    if "envFrom" in container:
        said.append("envFrom is ignored on this machine")
    if not_lent:
        said.append(f"only {GPU} is lent out on this machine, not {', '.join(not_lent)}")
    if others:
        said.append(f"only the container {TRAINER} runs on this machine, not {', '.join(others)}")
    return said

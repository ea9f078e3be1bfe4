"""`halvard run` from the manifest to the closing words."""

import asyncio
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from halvard.allowed import refusal
from halvard.invalid import InvalidStudy
from halvard.local.display import display, rungs
from halvard.local.gpus import Gpus, devices
from halvard.local.leftovers import kill_leftovers
from halvard.local.process import Leg
from halvard.local.program import GPU, gpus, notices, program, trainer
from halvard.local.runner import Job, Runner
from halvard.local.store import ChangedError, DamagedError, InUseError, Store, check_unchanged
from halvard.local.summary import summary
from halvard.manifest import load
from halvard.progress import Progress
from halvard.study import Study

FINISHED, UNFINISHED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class UnrunnableError(Exception):
    """A good Study that this machine cannot run; the message names the field and what would be right."""


def run(path: Path, results: Path) -> int:
    """Runs the study of this manifest, or goes on with it, in `results`/<study>; returns the exit code."""
    console = Console(highlight=False)
    try:
        manifest = read(path)
        study = Study.from_manifest(manifest)
        job = Job(study, manifest, path.resolve().parent)
        identifiers = devices(os.environ)
        check_runnable(job, len(identifiers))
        store = _open(results / study.name)
        return _run(job, store, Gpus(identifiers), console, ["halvard", "run", str(path), "--results", str(results)])
    except (InvalidStudy, UnrunnableError, ChangedError, InUseError, DamagedError) as error:
        Console(stderr=True, highlight=False).print(str(error), soft_wrap=True, markup=False)
        return BAD_INPUT


def read(path: Path) -> dict[str, Any]:
    """Returns the manifest in a file of YAML; raises UnrunnableError where it is not one document that is a mapping."""
    try:
        manifest = load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnrunnableError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UnrunnableError(f"{path}: not a YAML document: {error}") from error
    if not isinstance(manifest, dict):
        raise UnrunnableError(f"{path}: expected one Study (a mapping with apiVersion, kind, metadata and spec)")
    return manifest


def _open(root: Path) -> Store:
    try:
        return Store(root)
    except OSError as error:
        raise UnrunnableError(f"--results: {root} has to be a directory that can be written to: {error}") from error


def check_runnable(job: Job, gpus_here: int) -> None:
    """Raises UnrunnableError where the template's command cannot be run on a machine with so many GPUs."""
    template = job.study.spec.template
    field = "spec.template.spec.containers[trainer]"
    if not trainer(template).get("command"):
        raise UnrunnableError(
            f"{field}.command: required to run on this machine, where there is no image with an entrypoint"
        )
    try:
        what, wanted = program(template, {}, os.environ), gpus(template)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = "; ".join(filter(None, (repr(error), refusal(template))))
        raise UnrunnableError(f"{field}: not written as a container of a Pod is: {why}") from error
    first = what.arguments[0]
    where = job.folder / first if "/" in first else first
    if "$(" not in first and shutil.which(where, path=what.environment["PATH"]) is None:
        raise UnrunnableError(f"{field}.command: {first!r} is not a program on this machine")
    if 0 < gpus_here < wanted:
        raise UnrunnableError(f"{field}.resources.limits: {GPU} is {wanted}, but this machine has {gpus_here}")


def _run(job: Job, store: Store, available: Gpus, console: Console, command: list[str]) -> int:
    stored = store.study()
    if stored is not None:
        before = Study.from_manifest(stored)
        check_unchanged(before, job.study, store.root)
        job = Job(job.study.model_copy(update={"status": before.status}), job.manifest, job.folder)
    killed = kill_leftovers(store.root)
    for notice in _notices(job, available.total, killed):
        console.print(f"note: {notice}", soft_wrap=True, markup=False)
    with display(console) as shown:
        runner = Runner(job, store, available, shown)
        progress = asyncio.run(runner.run())
    store.close()
    _close(console, progress, store, command, interrupted=runner.interrupted)
    if progress.outcome is None:
        return INTERRUPTED if runner.interrupted else UNFINISHED
    return FINISHED if progress.outcome.condition == "Complete" else UNFINISHED


def _notices(job: Job, gpus_here: int, killed: int) -> list[str]:
    template, limits = job.study.spec.template, job.study.spec.limits
    said = notices(template)
    if refused := refusal(template):
        said.append(f"a cluster may not take this template: {refused}")
    if gpus(template) and not gpus_here:
        said.append(f"no GPU on this machine: the request for {GPU} is ignored")
    if limits.gpu_hours and not (gpus(template) and gpus_here):
        said.append("no trial holds a GPU here: limits.gpuHours is never used up")
    if killed:
        said.append(f"ended {killed} processes that an earlier run had left behind")
    return said


def _close(console: Console, progress: Progress, store: Store, command: list[str], *, interrupted: bool) -> None:
    status = progress.study.status
    again = shlex.join([*_program(), *command[1:]])
    if progress.outcome is None:
        reason = (
            "interrupted; nothing is lost"
            if interrupted
            else "nothing runs: spec.suspend is true or spec.parallelism is 0"
        )
        console.print(f"\n{progress.study.name}: {reason}. To go on: {again}", soft_wrap=True, markup=False)
        return
    legs = [Leg.load(directory / "leg.json") for directory in store.attempts()]
    said = summary(progress.study, status, progress.trials.values(), legs, progress.tuner.max_budget)
    elsewhere = shlex.join([*_program(), *command[1:-1], f"{command[-1]}-again"])
    console.print("", rungs(status), "", sep="\n")
    for heading, text in [*said, ("results", str(store.root)), ("to repeat it", elsewhere)]:
        console.print(Text.assemble((f"{heading:<14} ", "dim"), text), soft_wrap=True)


def _program() -> list[str]:
    """How this program was called, as short as it still works."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "halvard"]
    return [called.name if shutil.which(called.name) else os.path.relpath(called)]

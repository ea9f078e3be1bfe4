"""`halvard replay` from a directory of records to the exit code."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from halvard.invalid import InvalidStudy
from halvard.local.narrate import number
from halvard.manifest import load
from halvard.replay import Decision, Happening, IncompleteError, Result, history, replay
from halvard.study import Study
from halvard.trial import Trial

SAME, DIFFERENT, BAD_INPUT = 0, 1, 2
WIDE = 1000  # characters: where nobody looks at a terminal, a row stays a line
STUDY_LABEL = "halvard.dev/study"


class UnreadableError(Exception):
    """A directory that holds no records of one study; the message names the file and what would be right."""


def run(directory: Path, explain: str | None) -> int:
    """Replays the study whose records are in a directory; returns the exit code.

    `explain`: print the decisions, of one trial or (where it is empty) of all; None for none.
    """
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
    try:
        study, trials = read_records(directory)
        happened = history(trials)
        chosen = None if explain is None else _chosen(trials, explain)
        found = replay(study.spec, trials)
    except (InvalidStudy, UnreadableError, IncompleteError) as error:
        Console(stderr=True, highlight=False).print(str(error), soft_wrap=True, markup=False)
        return BAD_INPUT
    if chosen is not None:
        console.print(_table(happened, {trial.index: trial.name for trial in chosen}))
    if study.spec.scheduler.median is not None:
        console.print("note: stops by median are taken as recorded: the order of different trials' reports is not kept")
    if found.difference is None:
        console.print(f"{found.decisions} decisions replayed, all the same", markup=False)
        return SAME
    difference = found.difference
    console.print(f"{found.decisions} decisions replayed the same, then one differs, number {difference.order}:")
    console.print(f"  recorded: {difference.recorded}", f"  now:      {difference.now}", sep="\n", markup=False)
    if study.spec.scheduler.hyperband is not None and study.spec.limits.trials is not None:
        console.print("  (if limits.trials was changed while the study ran: Hyperband's last bracket depends on it)")
    return DIFFERENT


def read_records(directory: Path) -> tuple[Study, list[Trial]]:
    """Returns the study and its trials from a directory of results, or from what `kubectl get -o yaml` or json wrote.

    That is `study.yaml` and `trials/*.json`; or `study` and `trials` as `.yaml` or `.json`, objects or lists of them.
    Raises UnreadableError, or InvalidStudy.
    """
    if (directory / "trials").is_dir():
        # `halvard run` writes with PyYAML, to which other plain words are text than to kubectl
        found = list(_objects(directory / "study.yaml", yaml.safe_load))
        for path in sorted((directory / "trials").glob("*.json")):
            found += _objects(path, json.loads)
    else:
        found = [each for name in ("study", "trials") for each in _written(directory, name)]
    studies = [each for _, each in found if each.get("kind") == "Study"]
    if len(studies) != 1:
        raise UnreadableError(f"{directory}: {len(studies)} Studies: expected the records of one")
    study = Study.from_manifest(studies[0])
    trials = [_trial(path, each) for path, each in found if each.get("kind") == "Trial" and _belongs(each, study.name)]
    if not trials:
        raise UnreadableError(f"{directory}: holds no trials of {study.name}")
    return study, trials


def _written(directory: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    readers: dict[str, Callable[[str], Any]] = {".yaml": load, ".json": json.loads}
    for suffix, read in readers.items():
        path = directory / f"{name}{suffix}"
        if path.exists():
            yield from _objects(path, read)
            return
    raise UnreadableError(
        f"{directory}: holds neither {name}.yaml nor {name}.json: expected a directory of results of `halvard run`, "
        "or study.yaml and trials.yaml as `kubectl get studies NAME -o yaml` and `kubectl get trials -o yaml` write"
    )


def _objects(path: Path, read: Callable[[str], Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The objects in a file, each of a list."""
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise UnreadableError(f"{path}: cannot be read: {error}") from error
    items = content.get("items", [content]) if isinstance(content, dict) else [content]
    for item in items if isinstance(items, list) else [items]:
        if not isinstance(item, dict) or not isinstance(item.get("metadata", {}), dict):
            raise UnreadableError(f"{path}: expected objects with apiVersion, kind, metadata and spec")
        yield path, item


def _belongs(manifest: dict[str, Any], study: str) -> bool:
    """Whether it is a trial of this study: in a cluster its label says so, in a directory of results all are."""
    labels = manifest.get("metadata", {}).get("labels")
    return not isinstance(labels, dict) or bool(labels.get(STUDY_LABEL, study) == study)


def _trial(path: Path, manifest: dict[str, Any]) -> Trial:
    try:
        return Trial.from_manifest(manifest)
    except ValidationError as error:
        raise UnreadableError(f"{path}: not a Trial as Halvard stores it: {error}") from error
    except KeyError as error:
        raise UnreadableError(f"{path}: not a Trial as Halvard stores it: it has no {error.args[0]}") from error


def _chosen(trials: list[Trial], explain: str) -> list[Trial]:
    chosen = [trial for trial in trials if explain in ("", trial.name, str(trial.index))]
    if not chosen:
        raise UnreadableError(f"--explain {explain}: there is no such trial")
    return chosen


def _table(happened: list[Happening], names: dict[int, str]) -> Table:
    """The decisions on these trials, and what came of each."""
    values = {(each.index, each.budget): each.value for each in happened if isinstance(each, Result)}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("#", "trial", "until", "value", "why"):
        table.add_column(column, overflow="fold")
    for each in happened:
        if isinstance(each, Decision) and each.index in names:
            leg = each.index, each.budget
            value = ("not finite" if values[leg] is None else number(values[leg])) if leg in values else "-"
            table.add_row(str(each.order), names[each.index], str(each.budget), value, Text(each.why))
    return table

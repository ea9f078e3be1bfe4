"""The directory of results: the Study with its status, one record per trial, and what each attempt left behind.

The trials' records are the store that the next run folds; everything else is for people and for pandas.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from halvard.study import API_VERSION, Study
from halvard.study_status import StudyStatus
from halvard.trial import Trial

MUTABLE = ("parallelism", "limits", "suspend", "template", "failure_policy")


class InUseError(Exception):
    """Another run works on this directory."""


class ChangedError(Exception):
    """The directory holds the results of another search; the message says which field differs and what to do."""


class DamagedError(Exception):
    """A record that nobody can read, as after a change by hand; the message names the file."""


class Store:
    """`results/<study>/`: study.yaml, trials.csv, trials/<trial>.json, trials/<trial>/attempt-<n>/."""

    def __init__(self, root: Path) -> None:
        """Open the directory, made where it is missing. Raises InUseError where another run has it open."""
        self.root = root.resolve()
        self._trials = self.root / "trials"
        self._trials.mkdir(parents=True, exist_ok=True)
        self._lock = (self.root / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InUseError(f"{root}: another `halvard run` is at work in this directory") from None

    def close(self) -> None:
        """Let others open it."""
        self._lock.close()

    def attempt(self, trial: str, number: int) -> Path:
        """Returns the directory of one attempt."""
        return self._trials / trial / f"attempt-{number}"

    def attempts(self) -> list[Path]:
        """Returns the directories of all attempts that were ever started."""
        return sorted(self._trials.glob("*/attempt-*"))

    def trials(self) -> list[Trial]:
        """Returns every trial as it was last stored."""
        return [_read_trial(path) for path in sorted(self._trials.glob("*.json"))]

    def save_trial(self, trial: Trial) -> None:
        """Stores a trial; after a crash it is there as a whole, or as it was before."""
        record = {
            "apiVersion": API_VERSION,
            "kind": "Trial",
            "metadata": {"name": trial.name},
            **trial.model_dump(mode="json", by_alias=True, exclude_none=True, include={"spec", "status"}),
        }
        write_durably(self._trials / f"{trial.name}.json", json.dumps(record, indent=1) + "\n")

    def study(self) -> dict[str, Any] | None:
        """Returns the manifest of the study whose results these are, with its status, or None before the first run."""
        path = self.root / "study.yaml"
        try:
            return yaml.safe_load(path.read_text()) if path.exists() else None
        except yaml.YAMLError as error:
            raise DamagedError(f"{path}: cannot be read: {error}") from error

    def save_study(self, manifest: Mapping[str, Any], status: StudyStatus) -> None:
        """Stores the Study as its user wrote it, with its status."""
        told = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        text = yaml.safe_dump({**manifest, "status": told}, sort_keys=False, allow_unicode=True)
        write_durably(self.root / "study.yaml", text)

    def save_table(self, study: Study, trials: Iterable[Trial], budgets: Iterable[int]) -> None:
        """Stores `trials.csv`: one row per trial, one column per parameter, one for the value at each of `budgets`."""
        rungs = list(budgets)
        names = [parameter.name for parameter in study.spec.parameters]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        header = ["trial", "index", "state", "attempt", "budget", "seconds", "value"]
        table.writerow([*header, *names, *(f"value@{budget}" for budget in rungs)])
        table.writerows(_row(trial, names, rungs) for trial in sorted(trials, key=lambda trial: trial.index))
        write_durably(self.root / "trials.csv", text.getvalue())


def check_unchanged(stored: Study, study: Study, folder: Path) -> None:
    """Raises ChangedError where the stored study is another search than this one."""
    for name, field in type(study.spec).model_fields.items():
        if name not in MUTABLE and getattr(stored.spec, name) != getattr(study.spec, name):
            known_as = field.alias or name
            raise ChangedError(
                f"spec.{known_as}: {known_as} cannot be changed once the study has started, and {folder} holds "
                f"its results. Change it back, give the study another name, or remove the directory to start over"
            )


def write_durably(path: Path, text: str) -> None:
    """Replaces the file's content as a whole: a reader, and a crash, see the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_trial(path: Path) -> Trial:
    try:
        return Trial.from_manifest(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{path}: not a Trial as Halvard stores it: {error}") from error


def _row(trial: Trial, names: list[str], budgets: list[int]) -> list[object]:
    """Empty where there is nothing (a rung not reached, a parameter it has not); `nan` for a value not finite."""
    values = {result.budget: "nan" if result.value is None else result.value for result in trial.status.rungs}
    seconds = round(sum(result.seconds for result in trial.status.rungs) + trial.status.lost.seconds, 3)
    known = [
        trial.name,
        trial.index,
        trial.status.state,
        trial.attempt,
        trial.done,
        seconds,
        values.get(trial.done, ""),
    ]
    return [*known, *(trial.spec.parameters.get(name, "") for name in names), *(values.get(b, "") for b in budgets)]

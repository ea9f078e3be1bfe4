"""One run of one policy: what it is known by, what is kept of it, and the file of JSON lines that holds them all."""

import ast
import hashlib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.quality.loop import Improvement
from benchmarks.quality.policies import Policy
from benchmarks.quality.problem import Condition, Problem

HERE = "benchmarks.quality"
SHARED = (f"{HERE}.loop", f"{HERE}.problem", "halvard.simulate.table", "halvard.samplers.random")
"""What a rival's run depends on beside its own module."""


class Task(NamedTuple):
    """A run to be made."""

    policy: Policy
    problem: Problem
    condition: Condition
    seed: int

    @property
    def key(self) -> str:
        """What the run is known by: everything that its result depends on."""
        return json.dumps(
            {
                "policy": self.policy.name,
                "options": self.policy.options,
                "table": self.problem.name,
                "digest": self.problem.digest,
                **asdict(self.condition),
                "seed": self.seed,
                "version": version(self.policy.package),
                "code": code(self.policy.module),
            },
            sort_keys=True,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its best values over time, trials begun and finished, and seconds of a core it took."""

    key: str
    improvements: Sequence[Improvement]
    begun: int
    finished: int
    seconds: float

    def first(self, target: float) -> Improvement | None:
        """The first finished trial that is good enough."""
        return next((found for found in self.improvements if found.value <= target), None)


def run(task: Task, key: str) -> Run:
    """Makes a run; `key` is that of the task, worked out before: the code may change while runs are made."""
    outcome = task.policy.run(task.problem, task.condition, task.seed)
    return Run(key, outcome.improvements, outcome.begun, outcome.finished, outcome.seconds)


class Store:
    """Runs that were made, by key; a line that a kill cut short is passed over."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; the file need not exist."""
        self._path = path
        self.runs = {known.key: known for known in _read(path)}

    def add(self, made: Run) -> None:
        self.runs[made.key] = made
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": json.loads(made.key), **{k: v for k, v in asdict(made).items() if k != "key"}})
        cut_short = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * cut_short + line + "\n")


def _read(path: Path) -> Iterator[Run]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record: dict[str, Any] = json.loads(line)
            key = json.dumps(record.pop("key"), sort_keys=True)
            improvements = [Improvement(*each) for each in record.pop("improvements")]
            yield Run(key, improvements, **record)
        except (ValueError, KeyError, TypeError):
            continue


@cache
def version(package: str) -> str:
    return importlib.metadata.version(package)


@cache
def code(module: str) -> str:
    """Returns a digest of the code that a policy's runs depend on; comments, docstrings and layout do not count."""
    importlib.import_module(f"{HERE}.{module}")
    names = {*SHARED, f"{HERE}.{module}"}
    if module == "with_halvard":  # which has loaded all that it runs
        names |= {name for name in sys.modules if name.split(".")[0] == "halvard"}
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(_bare(Path(sys.modules[name].__file__ or "").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

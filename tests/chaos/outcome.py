"""What a Study came to, so that two of them can be compared."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from halvard.kube import Manifest
from halvard.study import Study

NOT_COMPARED = {"at", "curve", "gpuSeconds", "lost", "seconds"}  # depend on the clock, or may be lost by a crash


@dataclass(frozen=True, order=True)
class Ran:
    """A Pod that was created: until which budget it was to train, from where, and from which checkpoint."""

    name: str
    budget: int
    start: int
    resume: str


@dataclass(frozen=True)
class Outcome:
    """What became of a Study, without what depends on clocks: uids are replaced by names."""

    trials: tuple[Manifest, ...]
    pods: tuple[Ran, ...]
    best: Manifest | None
    condition: tuple[str, str]

    def differences(self, other: "Outcome") -> list[str]:
        """What is not as in the other one, in words."""
        mine, others = (dict(_flat(outcome)) for outcome in (self, other))
        nothing = "nothing"
        return [
            f"{name}: {mine.get(name, nothing)} instead of {others.get(name, nothing)}"
            for name in sorted(mine.keys() | others.keys())
            if mine.get(name, nothing) != others.get(name, nothing)
        ]


def outcome(study: Study, trials: Iterable[Manifest], pods: Iterable[Manifest]) -> Outcome:
    """What the Study has come to with these Trials and all Pods that there ever were."""
    pods = list(pods)
    named = names({study.uid: "study", **{pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}})
    parts = [{part: trial.get(part) for part in ("spec", "status")} for trial in trials]
    ends = [c for c in study.status.conditions if c.status == "True" and c.type in ("Complete", "Failed")]
    best = study.status.best
    return Outcome(
        trials=tuple(json.loads(named(json.dumps(_stable(trial)))) for trial in parts),
        pods=tuple(sorted(replace(ran(pod), resume=named(ran(pod).resume)) for pod in pods)),
        best=best.model_dump(mode="json") if best else None,
        condition=(ends[0].type, ends[0].reason) if ends else ("", ""),
    )


def names(uids: dict[str, str]) -> Callable[[str], str]:
    """Puts a name in the place of each uid, or of its first eight digits, wherever a text has it."""

    def named(text: str) -> str:
        for uid, name in uids.items():
            text = text.replace(uid, f"<{name}>").replace(uid[:8], f"<{name}>")
        return text

    return named


def ran(pod: Manifest) -> Ran:
    """What a Pod was to do."""
    trainer = next(container for container in pod["spec"]["containers"] if container["name"] == "trainer")
    told = {variable["name"]: variable.get("value", "") for variable in trainer["env"]}
    start, resume = int(told["HALVARD_START"]), told["HALVARD_RESUME_FROM"]
    return Ran(pod["metadata"]["name"], int(told["HALVARD_BUDGET"]), start, resume)


def _stable(value: Any) -> Any:
    """A manifest without what depends on the clock."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in NOT_COMPARED}
    return [_stable(item) for item in value] if isinstance(value, list) else value


def _flat(outcome: Outcome) -> Iterator[tuple[str, object]]:
    """Every value, with where it is."""
    yield "condition", outcome.condition
    yield "best", outcome.best
    for pod in outcome.pods:
        yield f"Pod {pod.name}", pod
    for trial in outcome.trials:
        for part in ("spec", "status"):
            for key, value in (trial[part] or {}).items():
                yield f"trial {trial['spec']['index']} {part}.{key}", value

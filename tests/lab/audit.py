"""What the API server's audit log tells: who wrote what, and how often."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WRITES = {"create", "update", "patch", "delete"}
NODE = "system:node:"


class Log:
    """The audit log from now on: what came before is never read."""

    def __init__(self, path: Path) -> None:
        """Notes where it ends now."""
        self.path = path
        self.begin = path.stat().st_size

    def lines(self) -> Iterator[str]:
        """Every request since then, in the order in which they were answered; the last one may still be written."""
        with self.path.open() as log:
            log.seek(self.begin)
            yield from log


@dataclass(frozen=True)
class Write:
    """One write that the API server took: by whom, of what (`trials/status`), and the object's name."""

    user: str
    verb: str
    resource: str
    name: str

    @property
    def by_a_kubelet(self) -> bool:
        """Whether a node's kubelet made it."""
        return self.user.startswith(NODE)


def writes(log: Path, namespace: str) -> Iterator[Write]:
    """Every write in a namespace that was taken, in order."""
    with log.open() as lines:
        for line in lines:
            if f'"namespace":"{namespace}"' not in line:
                continue
            request = json.loads(line)
            target = request.get("objectRef", {})
            taken = request.get("responseStatus", {}).get("code", 0) < 300
            if request["verb"] in WRITES and target.get("namespace") == namespace and taken:
                parts = (target["resource"], target.get("subresource"))
                resource = "/".join(part for part in parts if part)
                yield Write(request["user"]["username"], request["verb"], resource, target.get("name", ""))


def of_trial(made: Iterable[Write], trial: str) -> list[Write]:
    """Those of the trial itself and of its Pods."""
    return [write for write in made if write.name == trial or write.name.startswith(f"{trial}-")]


def tally(found: Iterable[Write]) -> str:
    """A table of how often who did what."""
    counts = Counter((write.user, write.verb, write.resource) for write in found)
    return "".join(
        f"{count:6}  {user:55} {verb:7} {resource}\n" for (user, verb, resource), count in sorted(counts.items())
    )

"""What the API server's audit log tells: who wrote what, and how often."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WRITES = {"create", "update", "patch", "delete"}
NODE = "system:node:"


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
    for line in log.read_text().splitlines():
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

"""The peer of every latency: what creating the same Pod takes a bare client in the same moments."""

import itertools
import time
from dataclasses import dataclass, field

from benchmarks.client import Client, copy_of, search
from benchmarks.results import Rounds, latency_row
from halvard.kube import PODS, STUDIES, Manifest

numbers = itertools.count(1)


@dataclass(slots=True)
class Creates:
    """What creating a Pod took a bare client: until the API server had answered, and until a watch had told."""

    answered: Rounds = field(default_factory=list)
    seen: Rounds = field(default_factory=list)

    def begin(self) -> None:
        """Begins a round."""
        self.answered.append([])
        self.seen.append([])

    async def add(self, client: Client, like: Manifest) -> None:
        """Creates the same Pod once, and removes it."""
        name = f"bare-{next(numbers)}"
        sent = time.perf_counter()
        await client.create(PODS, copy_of(like, name))
        self.answered[-1].append(time.perf_counter() - sent)
        self.seen[-1].append((await client.arrival(name)).at - sent)
        await client.delete(PODS, name)

    def raw(self) -> dict[str, Rounds]:
        """Returns every measurement."""
        return {"create": self.answered, "create to watch": self.seen}

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the rows that the others are measured by."""
        return [
            latency_row("bare client: create a Pod", self.answered, self.answered, ""),
            latency_row("bare client: create a Pod, seen by a watch", self.seen, self.answered, ""),
        ]


async def pod_for_comparison(client: Client) -> Manifest:
    """Returns a Pod as Halvard makes them; its Study is gone again."""
    name = f"sample-{next(numbers)}"
    await client.create(STUDIES, search(name, limits={"trials": 1}))
    pod = (await client.arrival(name)).pod
    await client.clear(name)
    return pod

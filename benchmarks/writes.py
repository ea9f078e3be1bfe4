"""How many writes the operator needs to bring a trial through three rungs, by the API server's audit log."""

import asyncio
from collections import Counter
from functools import partial

from benchmarks.bed import NAMESPACE, OPERATOR, Bed
from benchmarks.client import Client, budget_of, connected, search
from benchmarks.results import Table
from cluster.scripted import eventually
from halvard.kube import STUDIES, TRIALS
from lab.audit import writes

TRIALS_OF_EACH = 9


async def writes_a_trial(bed: Bed) -> Table:
    """Writes of the operator for a trial with three rungs, by the API server's audit log.

    In one study every trial is better than all before it: promoted at once at every rung, all in one Pod. In the other
    the first is the best: it waits at every rung until enough others have been worse, and needs three Pods.
    """
    async with connected(bed) as client:
        await asyncio.gather(
            play(client, "hot", watched=8, better=True),
            play(client, "resumed", watched=0, better=False),
        )
        rows = [
            writes_row(bed, "three rungs in one Pod (hot promotions)", "hot", 8),
            writes_row(bed, "three rungs in three Pods (paused and resumed)", "resumed", 0),
        ]
        for name in ("hot", "resumed"):
            await client.clear(name)
    columns = ("measured", "writes of the trial", "what", "all of the study, a trial", "goal")
    note = (
        "Every leg of these two trials lasts long enough (5 s) for its Running to be stored. Kubelet's writes left out."
    )
    return Table("Writes to the API server", columns, rows, note)


async def play(client: Client, name: str, *, watched: int, better: bool) -> None:
    """Runs a study, one trial at a time, to its end; legs of the `watched` trial last until their Running is stored."""
    await client.create(STUDIES, search(name, limits={"trials": TRIALS_OF_EACH}))
    while await eventually(partial(pod_or_end, client, name)) == "pod":
        pod = (await client.arrival(name)).pod
        await client.runs(pod)
        index = int(pod["metadata"]["name"].split("-")[-2])
        if index == watched:
            await eventually(partial(runs, client, f"{name}-{index:04d}"))
        token, verdict = await client.token(pod), {"budget": budget_of(pod)}
        while "budget" in verdict:
            loss = -index if better else index
            verdict = await client.push(token, verdict["budget"], verdict["budget"], loss)
        await client.ends(pod)


async def pod_or_end(client: Client, study: str) -> str:
    """What has come next: another Pod, or the end of the study; nothing so far is empty."""
    if client.has_arrival(study):
        return "pod"
    status = (await client.get(STUDIES, study)).get("status", {})
    return "end" if status.get("state") == "Complete" else ""


async def runs(client: Client, trial: str) -> bool:
    return bool((await client.get(TRIALS, trial)).get("status", {}).get("state") == "Running")


def writes_row(bed: Bed, title: str, study: str, trial: int) -> tuple[str, ...]:
    found = [w for w in writes(bed.control_plane.audit, NAMESPACE) if w.user == OPERATOR and w.name.startswith(study)]
    own = Counter(f"{w.verb} {w.resource}" for w in found if w.name.startswith(f"{study}-{trial:04d}"))
    what = ", ".join(f"{count} {verb}" for verb, count in sorted(own.items()))
    return title, str(own.total()), what, f"{len(found) / TRIALS_OF_EACH:.1f}", "<= 8"

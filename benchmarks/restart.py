"""What a restart takes and how much memory it needs when there are many stored trials, and how large they are."""

import itertools
import json
import statistics
import time
from datetime import UTC, datetime

from benchmarks.bed import Bed
from benchmarks.client import Client, connected, in_parallel, search
from benchmarks.results import Rounds, Scale, Table
from cluster.scripted import eventually
from halvard.kube import PODS, STUDIES, TRIALS, Manifest
from halvard.lifecycle import CURVE_POINTS
from halvard.pods import LABEL_STUDY

STORED = (0, 1_000, 20_000)
PARAMETERS = 8
KIB = 1024


async def restarts(bed: Bed, scale: Scale) -> Table:
    """Restarts the operator with more and more paused trials of one study in the store."""
    rows: list[tuple[str, ...]] = []
    raw: dict[str, Rounds] = {}
    async with connected(bed) as client:
        bed.operator.stop()
        study = await client.create(STUDIES, stored_study())
        sizes = STORED[: 2 if scale.quick else None]
        for before, count in itertools.pairwise((0, *sizes)):
            stored = range(max(1, before), count)  # the first one is made and kept running by the operator
            await in_parallel(store(client, study, index) for index in stored)
            ready, acts, memory = Rounds(), Rounds(), 0.0
            for number in range(scale.rounds):
                begun = time.perf_counter()
                bed.operator.start()
                ready.append([time.perf_counter() - begun])
                pod = await client.arrival("stored")
                acts.append([pod.at - begun])
                if number + 1 == scale.rounds:
                    await eventually(bed.has_seen_all)
                    memory = bed.memory
                bed.operator.stop()
                await client.delete(PODS, pod.pod["metadata"]["name"])
            rows.append((f"{count:,}", spread(ready), spread(acts), f"{memory:.0f} MiB", await largest(client)))
            raw |= {f"ready, {count}": ready, f"first Pod, {count}": acts}
        bed.operator.start()
    columns = ("stored trials", "start -> ready (listed)", "start -> next Pod (folded)", "memory", "largest objects")
    note = (
        "Goals: operator <= 300 MiB, Study <= 32 KiB, Trial <= 4 KiB, all in seconds. Medians of rounds (all rounds)."
    )
    return Table("The operator starts again", columns, rows, note, raw)


def stored_study() -> Manifest:
    """A Study with eight parameters, one running trial, and no end."""
    parameters = [{"name": f"p{number}", "float": {"min": 0.0, "max": 1.0}} for number in range(PARAMETERS)]
    return search("stored", parameters=parameters)


async def store(client: Client, study: Manifest, index: int) -> None:
    """Writes a trial as the operator leaves it when it pauses, its curve as long as it gets."""
    manifest = {
        "apiVersion": TRIALS.api_version,
        "kind": "Trial",
        "metadata": {
            "name": f"stored-{index:04d}",
            "labels": {LABEL_STUDY: "stored"},
            "ownerReferences": [
                {
                    "apiVersion": STUDIES.api_version,
                    "kind": "Study",
                    "name": "stored",
                    "uid": study["metadata"]["uid"],
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "index": index,
            "budget": 1,
            "parameters": {f"p{number}": 1 / (2 + index + number) for number in range(PARAMETERS)},
            "decision": "a new configuration",
        },
    }
    await client.create(TRIALS, manifest)
    await client.patch_status(TRIALS, f"stored-{index:04d}", stored_status(index))


def stored_status(index: int) -> Manifest:
    value = 1.0 / (1 + index)
    result = {"budget": 1, "value": value, "step": 1, "seconds": 1.5, "gpuSeconds": 1.5}
    return {
        "state": "Paused",
        "message": "paused: place 1234 of 5678 at rung 1, and the best 1892 go on",
        "attempt": 2,
        "step": 1,
        "rungs": [{**result, "at": datetime.now(UTC).isoformat()}],
        "checkpoint": {"name": "step-1", "step": 1, "attempt": 1},
        "curve": [{"step": step, "value": value + step / 7} for step in range(CURVE_POINTS)],
    }


async def largest(client: Client) -> str:
    """The sizes of the Study and of the largest of its Trials."""
    study = size(await client.get(STUDIES, "stored"))
    trials = (await client.list(TRIALS, "stored"))["items"]
    trial = max(map(size, trials), default=0)
    return f"Study {study / KIB:.1f} KiB, Trial {trial / KIB:.1f} KiB"


def size(manifest: Manifest) -> int:
    return len(json.dumps(manifest, separators=(",", ":")))


def spread(rounds: Rounds) -> str:
    values = sorted(value for [value] in rounds)
    return f"{statistics.median(values):.2f} s ({values[0]:.2f} - {values[-1]:.2f})"

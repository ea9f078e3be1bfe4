"""More trials than GPUs: every GPU is held, few Pods wait for one, two Studies share them, and a quota is a queue."""

import contextlib
import itertools
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from e2e.studies import Manifest, Studies, eventually, python, show, study, template
from halvard.starting import LOOK_AHEAD
from lab.binaries import binary
from lab.cluster import GPUS, NODES, Cluster

ALL = GPUS * NODES
TRIALS = 24
# Two to six seconds a step; every third trial or so is promoted.
TRAINER = """
import time
from halvard_trainer import Trial
trial = Trial.from_environment()
x = trial.parameters["x"]
for step in trial.steps():
    time.sleep(2 + x % 5)
    trial.report(loss=x * 7 % 24 / step)
"""
# Trains as many seconds as its parameter says, and is never promoted.
WAITS = """
import time
from halvard_trainer import Trial
trial = Trial.from_environment()
for step in trial.steps():
    time.sleep(trial.parameters["x"])
    trial.report(loss=float("nan"))
"""
State = dict[str, Manifest]
"""All Pods of a namespace at one moment, by name."""


@contextlib.contextmanager
def watched(studies: Studies, directory: Path) -> Iterator[Callable[[], list[State]]]:
    """Watches the namespace's Pods; what it gives returns every state they were in so far."""
    kubectl = (binary("kubectl"), f"--kubeconfig={studies.cluster.kubeconfig}", f"--namespace={studies.namespace}")
    arguments = ("get", "pods", "--watch", "--output-watch-events", "--output=json")
    path = directory / "watch.json"
    with path.open("wb") as output:
        watching = subprocess.Popen([*kubectl, *arguments], stdout=output)
    try:
        yield lambda: states(path.read_text())
    finally:
        watching.terminate()
        watching.wait()


def states(text: str) -> list[State]:
    """What the events of a watch make of the Pods, one state for each; an event still being written is left out."""
    decoder, found, pods = json.JSONDecoder(), list[State](), State()
    while text := text.lstrip():
        try:
            event, end = decoder.raw_decode(text)
        except ValueError:
            break
        text, pod = text[end:], event["object"]
        pods = {**pods, pod["metadata"]["name"]: pod}
        if event["type"] == "DELETED":
            del pods[pod["metadata"]["name"]]
        found.append(pods)
    return found


def place(pod: Manifest) -> str:
    """Whether a Pod waits for a node, holds its GPU, or has ended."""
    if pod["status"]["phase"] in ("Succeeded", "Failed"):
        return "ended"
    return "holds" if pod["spec"].get("nodeName") else "waits"


def count(history: Sequence[State]) -> list[Counter[str]]:
    """How many Pods were in which place."""
    return [Counter(map(place, state.values())) for state in history]


def waits_when_one_ends(history: Sequence[State]) -> list[int]:
    """How many waited each time a GPU fell free while there were trials to begin."""
    found, ended, last = list[int](), 0, trials(history[-1])
    for state, places in zip(history, count(history), strict=True):
        if places["ended"] > ended and trials(state) != last:
            found.append(places["waits"])
        ended = places["ended"]
    return found


def trials(state: State) -> set[str]:
    """The trials that have had a Pod."""
    return {pod["metadata"]["labels"]["halvard.dev/trial"] for pod in state.values()}


@pytest.mark.parametrize("parallelism", [12, 40])
def test_every_gpu_is_held_and_at_most_four_pods_wait(
    studies: Studies, lab: Cluster, tmp_path: Path, parallelism: int
) -> None:
    with watched(studies, tmp_path) as seen:
        studies.apply(study(template(lab, python(TRAINER)), range(TRIALS), parallelism=parallelism))
        studies.wait_complete()
        history = seen()
    places = count(history)
    lacking = waits_when_one_ends(history)
    lines = (f"{p['holds']} hold a GPU, {p['waits']} wait, {p['ended']} have ended\n" for p in places)
    show(f"{ALL} GPUs and parallelism {parallelism}", "".join(line for line, _ in itertools.groupby(lines)))
    assert (max(p["holds"] for p in places), max(p["waits"] for p in places)) == (ALL, LOOK_AHEAD)
    assert len(lacking) >= TRIALS // 2
    assert min(lacking) >= 1
    assert studies.study()["trials"]["total"] == TRIALS


def test_a_second_study_gets_its_share(studies: Studies, lab: Cluster, tmp_path: Path) -> None:
    """The scheduler keeps a Pod that it has tried in vain for up to 10 s: GPUs fall free more slowly than that here."""
    ends = [15 * (number + 1) for number in range(ALL)]
    stays = range(10_000, 10_020)
    with watched(studies, tmp_path) as seen:
        studies.apply(study(template(lab, python(WAITS)), [*ends, *stays], parallelism=12))
        eventually(lambda: len(given(seen())) == ALL)
        second = study(template(lab, python(WAITS)), stays, parallelism=12)
        studies.apply({**second, "metadata": {"name": "second"}})
        order = eventually(lambda: given(seen())[2 * ALL - 1 :] and given(seen())[: 2 * ALL])
        history = seen()
    shares = Counter(order[ALL:])
    show("shares of two studies", f"given a GPU, in this order: {' '.join(order)}\n{dict(shares)}\n")
    assert min(shares["search"], shares["second"]) >= ALL // 4
    assert max(p["waits"] for p in count(history)) <= 2 * LOOK_AHEAD


def given(history: Sequence[State]) -> list[str]:
    """The studies of Pods in the order in which these were given a GPU."""
    order: dict[str, str] = {}
    for state in history:
        order |= {
            name: pod["metadata"]["labels"]["halvard.dev/study"]
            for name, pod in state.items()
            if name not in order and place(pod) == "holds"
        }
    return list(order.values())


def test_a_quota_of_gpus_is_a_queue_that_the_study_tells_of(studies: Studies, lab: Cluster, tmp_path: Path) -> None:
    studies.set_quota(3)
    with watched(studies, tmp_path) as seen:
        studies.apply(study(template(lab, python(TRAINER)), range(TRIALS // 2), parallelism=12))
        message = studies.wait_degraded("QuotaExhausted")
        eventually(lambda: count(seen())[-1]["ended"] >= 3)
        limited = len(seen())
        studies.set_quota(ALL)
        studies.wait("study/search", "condition=Degraded=false")
        studies.wait_complete()
        history = seen()
    places = count(history)
    show("a quota of three GPUs", f"{message}\n{studies.condition('Degraded')}\n")
    assert "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1" in message
    assert max(p["holds"] + p["waits"] for p in places[:limited]) == 3
    assert max(p["holds"] for p in places[limited:]) > 3
    assert [trial["status"]["faults"] for trial in studies.every("trials")] == [0] * (TRIALS // 2)
    assert studies.study()["trials"]["failed"] == 0

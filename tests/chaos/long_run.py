"""A long run on a whole cluster: several Studies after each other, troubles of all kinds at random moments.

By hand: `python -m chaos.long_run --minutes 30 --seed 1` (root). Every Study has to end as it should, and its history
is checked; then it is deleted, and the next one is applied. In the second half the operator that leads lives on, among
all other troubles, and its memory must not grow.
"""

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.table import Table

from chaos.troubles import TROUBLES, Missed, Place, Trouble, Undo
from e2e.conftest import apply_custom_resources
from e2e.namespaces import fresh_namespace
from e2e.release import Release
from e2e.searches import CHECKPOINTS
from e2e.studies import Manifest, Studies, python, study, template
from halvard.study import Study
from history import check
from history.audit import history_of
from history.logged import heard
from lab.cluster import Cluster, only_one
from lab.container_logs import ContainerLogs, following
from lab.helm import Helm
from lab.machine import running_with

AT_ONCE = 3
EVERY = 6.0  # seconds between two troubles, on average
LOOK = 1.0
SETTLED = 60.0  # seconds into the second half until what the first one began is over, and the leader knows everything
MEASURED = 60.0  # seconds between two looks at the leader's memory
GROWTH = 0.15  # of its resident memory, at most, in the second half
COMPARED = 3  # samples at either end of that
SURVIVED = [trouble for trouble in TROUBLES if trouble.survived]
PATIENCE = 600.0  # seconds that a Study may take to end once nothing befalls it any more

# Some configurations diverge, some crash; the better ones have a small x.
TRAINER = """
import math, sys, time
from halvard_trainer import Trial

trial = Trial.from_environment()
x = trial.parameters["x"]
for step in trial.steps():
    time.sleep(0.5)
    if x > 0.95:
        sys.exit("ValueError: x is too large")
    loss = math.nan if 0.9 < x else x + 1 / step
    trial.report(loss=loss, checkpoint=lambda path: path.write_text(str(step)))
"""
SCHEDULERS = (
    {"asha": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
    {"adaptive": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
    {"hyperband": {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}},
    {"median": {"budget": 6, "grace": 2}},
)
NOT_ITS_FAULT = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [137]}}]}  # it was killed
SOON = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    for state in ("unreachable", "not-ready")
]


@dataclass(frozen=True)
class Sample:
    """What a leader had in memory."""

    at: float
    pid: int
    resident: int  # bytes


@dataclass
class Run:
    """One run: what is under way, and what came of it so far."""

    place: Place
    logs: ContainerLogs  # of the operators
    random: Random
    befell: Counter[str] = field(default_factory=Counter)
    ends: list[tuple[float, Undo]] = field(default_factory=list)  # of what lasts
    done: Counter[str] = field(default_factory=Counter)  # Studies by state, their trials and retries
    violations: list[str] = field(default_factory=list)
    memory: list[Sample] = field(default_factory=list)  # of the leader in the second half
    stock: set[str] = field(default_factory=set)  # Studies that have ended and are counted
    names: Iterator[int] = field(default_factory=itertools.count)

    def study(self) -> Manifest:
        """The next Study."""
        number = next(self.names)
        trainer = template(self.place.lab, python(TRAINER))
        trainer["spec"] |= {"tolerations": SOON, "terminationGracePeriodSeconds": 2}
        manifest = study(
            trainer,
            [],
            parameters=[{"name": "x", "float": {"min": 0.001, "max": 1.0}}],
            sampler={"auto": {}},
            scheduler=SCHEDULERS[number % len(SCHEDULERS)],
            parallelism=4,
            limits={"trials": 24, "failedTrials": 1000, "retries": 1000},
            checkpoint=CHECKPOINTS,
            failurePolicy=NOT_ITS_FAULT,
            seed=number,
        )
        manifest["metadata"]["name"] = f"study-{number:03d}"
        return manifest

    def trouble(self, troubles: Sequence[Trouble]) -> None:
        """Something befalls something."""
        [chosen] = self.random.choices(troubles, [trouble.weight for trouble in troubles])
        try:
            undo = chosen.begin(self.place, self.random)
        except Missed:
            return
        self.befell[chosen.name] += 1
        if undo:
            self.ends.append((time.monotonic() + chosen.lasts, undo))

    def end(self, *, now: bool = False) -> None:
        """Ends what has lasted long enough, or everything."""
        for due in [due for due in self.ends if now or due[0] <= time.monotonic()]:
            try:
                due[1]()
            except Missed:
                continue  # the API server is away: once more, later
            self.ends.remove(due)

    def check(self) -> int:
        """Takes stock of the Studies that have ended, and deletes them; how many go on."""
        place, going = self.place, 0
        try:
            studies = place.studies.every("studies")
        except Exception:  # noqa: BLE001  # the API server is away
            return AT_ONCE
        for manifest in studies:
            name, state = manifest["metadata"]["name"], manifest.get("status", {}).get("state")
            if "deletionTimestamp" in manifest["metadata"]:
                continue
            if state not in ("Complete", "Failed"):
                going += 1
                continue
            if name not in self.stock:
                self._take_stock(Study.from_manifest(manifest))
                self.stock.add(name)
            with suppress(Missed):  # the API server is away: once more, later
                place.kubectl("delete", f"study/{name}", "--wait=false")
        return going

    def _take_stock(self, ended: Study) -> None:
        counts = ended.status.trials
        with self.place.lab.audit.open() as log:
            concerned = (line for line in log if ended.name in line or '"leases"' in line)
            history = history_of(concerned, ended.namespace, ended.name, heard(self.logs.text().splitlines()))
        found = [f"{ended.name}: {violation}" for violation in check(history)]
        if (
            ended.status.state != "Complete"
            or counts.total != counts.paused + counts.complete + counts.failed + counts.stopped
        ):
            found.append(f"{ended.name}: it is {ended.status.state} with {counts}")
        self.violations += found
        faults = sum(trial.status.faults for trial in history.trials)
        self.done += Counter(studies=1, trials=counts.total, failed=counts.failed, retries=faults)

    def look_at_memory(self) -> None:
        """Notes what the leader has in memory, once a minute."""
        if self.memory and time.monotonic() < self.memory[-1].at + MEASURED:
            return
        found = list[Sample]()
        for pid in running_with(f"HALVARD_IDENTITY={self.place.leader()}"):
            with suppress(OSError):  # it was killed
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                found.append(Sample(time.monotonic(), pid, pages * os.sysconf("SC_PAGE_SIZE")))
        if found:
            self.memory.append(max(found, key=lambda sample: sample.resident))


def endure(run: Run, minutes: float) -> None:
    """Keeps Studies running among troubles for so long, and then lets them end in peace."""
    begun = time.monotonic()
    half, deadline, trouble_at, going = begun + 30 * minutes, begun + 60 * minutes, begun + 10, 0
    while time.monotonic() < deadline:
        second = time.monotonic() >= half
        going = run.check()
        for _ in range(AT_ONCE - going):
            run.place.studies.apply(run.study())
        if time.monotonic() >= trouble_at:
            run.trouble(SURVIVED if second else TROUBLES)
            trouble_at = time.monotonic() + run.random.expovariate(1 / EVERY)
        run.end()
        if time.monotonic() >= half + SETTLED:
            run.look_at_memory()
        time.sleep(LOOK)
    run.violations += grown(run.memory)
    peace = time.monotonic()
    while (going := run.check()) and time.monotonic() < peace + PATIENCE:
        run.end(now=True)
        time.sleep(LOOK)
    if going:
        run.violations.append(f"{going} Studies have not ended {PATIENCE:.0f} s after the last trouble")


def grown(memory: Sequence[Sample]) -> list[str]:
    """What is not as it should be of the memory of a leader that lives on: it has grown, or was none."""
    if not memory or len({sample.pid for sample in memory}) > 1:
        return [f"no operator led for the whole second half: {len({sample.pid for sample in memory})} did"]
    sizes = [sample.resident for sample in memory]
    first, last = median(sizes[:COMPARED]), median(sizes[-COMPARED:])
    if last > first * (1 + GROWTH):
        return [f"the leader's memory has grown from {first / 2**20:.0f} to {last / 2**20:.0f} MiB"]
    return []


def report(run: Run, console: Console, seed: int) -> None:
    """Says what befell the Studies and what became of them."""
    table = Table("trouble", "times", title=f"long run, seed {seed}")
    for name, times in run.befell.most_common():
        table.add_row(name, str(times))
    console.print(table)
    console.print(", ".join(f"{count} {what}" for what, count in run.done.items()))
    series = ", ".join(f"{sample.resident >> 20}" for sample in run.memory)
    console.print(f"memory of the leader in the second half, each minute: {series or 'never seen'} MiB")
    console.print(f"violations: {len(run.violations)}")
    for violation in run.violations:
        console.print(violation, markup=False)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster with Halvard's custom resources."""
    made = Cluster()
    with only_one():
        made.start()
        try:
            apply_custom_resources(made)
            yield made
        finally:
            made.stop()


@click.command()
@click.option("--minutes", type=float, default=30.0, show_default=True, help="How long troubles come.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which, and when.")
def main(minutes: float, seed: int) -> None:
    """Lets troubles befall Studies on a whole cluster, and says whether anything was lost."""
    console = Console()
    with ExitStack() as stack:
        lab = stack.enter_context(cluster())
        folder = Path(stack.enter_context(TemporaryDirectory()))
        system, namespace = (stack.enter_context(fresh_namespace(lab)) for _ in range(2))
        release = Release(lab, Helm(lab.kubeconfig, folder), system)
        release.install("--set=crds.enabled=false", "--set=replicas=2")
        stack.callback(release.uninstall)
        lab.claim(namespace, CHECKPOINTS["persistentVolumeClaim"]["claimName"])
        logs = stack.enter_context(following(lab, system))
        run = Run(Place(lab, release, Studies(lab, namespace, release)), logs, Random(seed))
        endure(run, minutes)
        report(run, console, seed)
    sys.exit(bool(run.violations))


if __name__ == "__main__":
    main()

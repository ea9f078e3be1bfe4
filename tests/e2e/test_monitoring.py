"""Prometheus scrapes the operator in the cluster: both replicas are up, and every panel of the dashboard has data."""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.release import Release
from e2e.studies import Studies, eventually, python, show, study, template
from lab.cluster import Cluster
from lab.panels import dashboard, queries
from lab.prometheus import Prometheus

# Takes a while for each step; the first trials are the better ones, and the very first is there to be deleted.
TRAINER = """
import os, time
from halvard_trainer import Trial

trial = Trial.from_environment()
for step in trial.steps():
    time.sleep(600 if os.environ["HOSTNAME"] == "search-0000-1" else 4)
    trial.report(loss=trial.parameters["x"] / step)
"""
TRIALS = [0.1 * n for n in range(1, 15)]
Rows = list[dict[str, Any]]


def highest(rows: Rows) -> float:
    return max((float(row["value"]) for row in rows), default=0.0)


@pytest.fixture(scope="module")
def prometheus(lab: Cluster, release: Release) -> Iterator[Prometheus]:
    with Prometheus(lab.kubeconfig, release.namespace) as running:
        yield running


@pytest.fixture(scope="module")
def panels(prometheus: Prometheus, served: Studies) -> dict[tuple[str, str], Rows]:
    """What every query of the dashboard gave while a Study ran that had more to do than there are GPUs, and a fault."""
    served.apply(study(template(served.cluster, python(TRAINER)), TRIALS, parallelism=12))
    served.wait("pod/search-0000-1", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    served.kubectl("delete", "pod", "search-0000-1", "--grace-period=1", "--wait=false")
    answers: dict[tuple[str, str], Rows] = {query: [] for query in queries(dashboard())}

    def ask() -> bool:
        for query, before in list(answers.items()):
            rows = prometheus.query(query[1])
            # what happened in the last minutes is over by the end, where the Study takes long
            over = "increase(" in query[1] and highest(rows) < highest(before)
            answers[query] = before if over or not rows else rows
        return served.study().get("state") == "Complete" and all(answers.values())

    eventually(ask)
    return answers


def test_both_replicas_are_scraped_and_one_of_them_leads(prometheus: Prometheus, release: Release) -> None:
    def up() -> Rows:
        return [target for target in prometheus.targets() if target["health"] == "up"]

    eventually(lambda: len(up()) == 2)
    assert sorted(target["labels"]["pod"] for target in up()) == sorted(release.pods())
    leading = eventually(lambda: prometheus.query("halvard_leader == 1"))
    assert [row["metric"]["pod"] for row in leading] == [release.leader()]


def test_every_panel_of_the_dashboard_has_data_and_shows_what_happened(
    panels: dict[tuple[str, str], Rows], served: Studies
) -> None:
    def most(title: str) -> float:
        return max(highest(rows) for (name, _), rows in panels.items() if name == title)

    show("panels of the dashboard", "".join(f"{title:30} {shorten(rows)}\n" for (title, _), rows in panels.items()))
    best = served.study()["best"]["value"]
    assert most("Best value so far") == pytest.approx(best)
    assert most("Trials by state") == served.study()["trials"]["paused"]
    assert most("Faults by reason") > 0


def test_no_alert_fires_while_all_is_well(prometheus: Prometheus, panels: dict[tuple[str, str], Rows]) -> None:
    assert prometheus.query('ALERTS{alertstate="firing"}') == []


def test_what_the_operator_used_is_known(
    prometheus: Prometheus, panels: dict[tuple[str, str], Rows], release: Release
) -> None:
    of_leader = f'{{pod="{release.leader()}"}}'
    memory = float(prometheus.query(f"max_over_time(process_resident_memory_bytes{of_leader}[10m])")[0]["value"])
    cpu = float(prometheus.query(f"process_cpu_seconds_total{of_leader}")[0]["value"])
    show("the leading operator", f"{memory / 2**20:.0f} MiB at most, {cpu:.1f} s of CPU since its start\n")
    assert memory < 512 * 2**20  # the chart's limit


def shorten(rows: Rows) -> str:
    """Series and values in a line."""
    said = []
    for row in rows[:4]:
        labels = [
            value for name, value in sorted(row["metric"].items()) if name not in {"namespace", "job", "instance"}
        ]
        said.append(f"{'/'.join(labels)} {float(row['value']):.4g}".strip())
    return ", ".join(said) + (f", and {len(rows) - 4} more" if len(rows) > 4 else "")
